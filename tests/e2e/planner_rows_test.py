#!/usr/bin/python3
"""Every row of the table in docs/guides/resync.md, through a real node: the answer, its numbers, and what is counted.

Row 3 is out of reach: a node's term is that of its log until there are promises."""

import json
import re

import harness
import pull_client
import state_files
import towline_client
from pull_client import PullStream, consumer_start, history, replica_start
from resync_checks import ELSEWHERE, MIB, OPTIONS, PlannerTest, decisions
from towline.v1 import slot_service_pb2
from workload import fill

OTHER_CLUSTER = "0123456789abcdef01234567"
TERM_ID_2 = 0xb2


class PrimaryRowsTest(PlannerTest):
    def start_in_term_2(self):
        """A primary whose log has two terms."""
        p1 = self.primary(options=OPTIONS).start()
        first = fill(p1, 200)
        p1.stop()
        state_files.add_term(p1.data_dir, 2, first + 1, TERM_ID_2)
        p1.start()
        self.assertEqual([(entry["term"], entry["start_lsn"]) for entry in p1.status()["history"]],
                         [(1, 1), (2, first + 1)])
        fill(p1, 200, prefix="second/")
        self.learn(p1)
        return p1

    def test_rows(self):
        p1 = self.start_in_term_2()
        self.check_refusals_of_form(p1)
        self.check_positions(p1)
        self.check_histories_that_part(p1)
        self.drop_slots(p1)
        self.check_a_large_log(p1)
        self.drop_slots(p1)
        self.check_a_pruned_log(p1)
        self.drop_slots(p1)
        p1.stop()
        p1.options["slots.auto_create"] = "false"
        p1.start()
        lsn = p1.status()["wal"]["durable_lsn"]
        self.ask(p1, "4", "refuse", "slot_not_found", self.at(lsn, "r-unknown"))
        self.ask(p1, "4", "refuse", "slot_not_found", self.at(lsn, "c-unknown", consumer_start))
        self.assertEqual(p1.status()["slots"], [])

    def check_refusals_of_form(self, p1):
        lsn = p1.status()["wal"]["durable_lsn"]
        # What another version sends is not even read, so its refusals are those of one nameless replica.
        with PullStream(p1, replica_start("r-version", protocol_version=2)) as stream:
            self.assertEqual((stream.decision, stream.started.reason), ("refuse", "protocol_version"))
            self.assertRegex(stream.started.message, r"version 2\b.*version 1\b")
        self.assertEqual(decisions(p1)["resync"], {"refuse/protocol_version": 1})
        self.ask(p1, "0", "refuse", "self", replica_start("p1"))
        incarnation = self.incarnation(p1)
        self.ask(p1, "0", "refuse", "self", replica_start("r-twin", incarnation=incarnation), ["p1"])
        self.ask(p1, "1", "refuse", "cluster_mismatch", self.at(lsn, "r-stranger", cluster_id=OTHER_CLUSTER),
                 [OTHER_CLUSTER, self.cluster_id])
        self.ask(p1, "1", "refuse", "malformed", self.at(lsn, "r-homeless", cluster_id=""), [lsn])
        self.ask(p1, "1", "refuse", "malformed", self.at(lsn, "r-confused", history=history((2, lsn + 1, 7))), [lsn])
        for kind, name in ((replica_start, "r-late"), (consumer_start, "c-late")):
            self.ask(p1, "2", "refuse", "stale_primary", self.at(lsn, name, kind, promised_term=9), [9, 2])
        self.assertEqual(p1.status()["state"], "writable", "they are no members")
        self.ask(p1, "4", "refuse", "slot_kind", self.kind_of_other(p1, lsn), ["c-other"])
        start = self.at(lsn, "r-busy")
        with PullStream(p1, start):
            before = decisions(p1)
            thief = self.at(lsn, "r-busy")
            for _ in range(2):
                with PullStream(p1, thief) as stream:
                    self.assertEqual((stream.decision, stream.started.reason), ("refuse", "slot_in_use"))
            self.assertEqual(self.logged_row(p1, thief), "4")
            self.assert_counted(p1, thief, before, "refuse/slot_in_use")
            self.assert_slot(p1, "r-busy", "active")
            self.wait_joined(p1, start)

    def incarnation(self, node):
        """Known to whoever reads the node's log."""
        return int(re.search(r" first_start .*incarnation=([0-9a-f]+)", node.log())[1], 16)

    def kind_of_other(self, node, lsn):
        """A replica that asks for the slot of a consumer."""
        node.client.slots.CreateSlot(slot_service_pb2.CreateSlotRequest(name="c-other", kind=pull_client.CONSUMER))
        return self.at(lsn, "c-other")

    def check_positions(self, p1):
        lsn = p1.status()["wal"]["durable_lsn"]
        ahead = lsn + 1000
        self.ask(p1, "5", "refuse", "ahead", self.at(lsn, "c-early", consumer_start, exact_from=self.exact_from(ahead)))
        elsewhere = self.exact_from(lsn, ELSEWHERE)
        self.ask(p1, "5a", "full", "inexact", self.at(lsn, "r-inexact", exact_from=elsewhere), [lsn])
        self.ask(p1, "5a", "full", "inexact", self.at(lsn, "r-other-chain", exact_from=self.exact_from(lsn, chain=1)))
        self.ask(p1, "5a", "refuse", "inexact", self.at(lsn, "c-inexact", consumer_start, exact_from=elsewhere), [lsn])
        self.ask(p1, "6", "partial", "new_replica", replica_start("r-new"), [2 * MIB])
        self.ask(p1, "6", "partial", "new_consumer", consumer_start("c-new"))
        self.ask(p1, "7", "refuse", "ahead", self.at(ahead, "c-ahead", consumer_start), [ahead])
        for kind, name in ((replica_start, "r-rotten"), (consumer_start, "c-rotten")):
            started = self.ask(p1, "9", "refuse", "diverged_same_term", self.at(lsn, name, kind, chain=0xabc), [lsn, 2])
            self.assertIn(f"{self.chain(lsn):016x}", started.message)
            self.assertIn(f"{0xabc:016x}", started.message)
        self.ask(p1, "11", "partial", "resumed", self.at(lsn - 7, "r-back"), [lsn - 6, 1])
        self.ask(p1, "11", "partial", "resumed", self.at(lsn - 7, "c-back", consumer_start), [lsn - 6, 1])
        where = p1.status()["wal"]["durable_lsn"]
        self.ask(p1, "11", "partial", "resumed", consumer_start("c-back", from_slot=True), [where + 1])

    def check_histories_that_part(self, p1):
        common = self.history[1][1] - 50
        lsn = common + 80
        self.ask(p1, "8", "rewind", "diverged",
                 self.elsewhere(common, lsn, "r-rewinds", oldest_rewind_lsn=common - 10), [lsn, common])
        for name, fields in (("r-no-point", {}), ("r-late-point", {"oldest_rewind_lsn": common + 1}),
                             ("r-pruned", {"oldest_rewind_lsn": 1, "first_retained_lsn": common + 2})):
            started = self.ask(p1, "8", "full", "diverged", self.elsewhere(common, lsn, name, **fields), [lsn, common])
            self.assertEqual(started.common_lsn, common)
        started = self.ask(p1, "8", "refuse", "diverged", self.elsewhere(common, lsn, "c-parted", consumer_start),
                           [lsn, common, 1])
        self.assertEqual((started.common_lsn, started.first_retained_lsn), (common, 1))

    def check_a_large_log(self, p1):
        """The log is whole, and more than an empty replica replays; then a record of it rots."""
        lsn = fill(p1, 2500, prefix="large/")
        self.chain(1)  # and all others, while the log is whole
        self.assertEqual(p1.status()["wal"]["first_lsn"], 1)
        self.ask(p1, "6", "full", "new_replica", replica_start("r-large"), [2 * MIB])
        self.ask(p1, "6", "partial", "new_consumer", consumer_start("c-large"))
        self.drop_slots(p1)
        dump = harness.towctl("wal", "dump", "--data-dir", p1.data_dir, "--from", 300, "--to", 300, "-o", "json")
        hurt = json.loads(dump.stdout)
        flip(hurt["file"], hurt["offset"] + 100)
        # Found by the first who reads it: the stream ends, and who asks after that needs a snapshot.
        start = self.at(250, "r-finds")
        with PullStream(p1, start) as stream:
            self.assertEqual(stream.decision, "partial")
            self.wait_joined(p1, start)
            self.assertEqual(stream.ended().reason, "wal_damaged")
        (damage,) = p1.status()["wal"]["damaged"]
        self.assertEqual((damage["first_lsn"], damage["readable"]), (300, False))
        last = damage["last_lsn"]  # what cannot be reached ends at the next entry of the seek index
        self.ask(p1, "10", "full", "wal_damaged", self.at(250, "r-hurt"), [251, last])
        self.ask(p1, "10", "full", "wal_damaged", self.at(last - 1, "r-near"), [last])
        started = self.ask(p1, "10", "refuse", "wal_damaged", self.at(250, "c-hurt", consumer_start), [251, last])
        self.assertRegex(started.next_action, rf"\b{last}\b")
        self.ask(p1, "6", "full", "new_replica", replica_start("r-empty"), [last])
        self.ask(p1, "6", "refuse", "wal_damaged", consumer_start("c-empty"), [last])
        common = self.history[1][1] - 50
        self.ask(p1, "8", "full", "diverged", self.elsewhere(common, lsn, "r-parted", oldest_rewind_lsn=1), [common])
        self.ask(p1, "11", "partial", "resumed", self.at(last, "r-behind-it"), [last + 1])
        flip(hurt["file"], hurt["offset"] + 100)

    def check_a_pruned_log(self, p1):
        fill(p1, 12000, prefix="huge/")
        first = self.wait_pruned(p1)
        self.ask(p1, "6", "full", "new_replica", replica_start("r-too-late"), [1, first])
        started = self.ask(p1, "6", "refuse", "wal_removed", consumer_start("c-pruned"), [1, first])
        self.assertRegex(started.next_action, rf"\b{first - 1}\b")
        self.ask(p1, "10", "full", "wal_removed", self.at(250, "r-gone", chain=1), [251, first])
        started = self.ask(p1, "10", "refuse", "wal_removed", self.at(250, "c-gone", consumer_start, chain=0),
                           [251, first])
        self.assertEqual(started.first_retained_lsn, first)


class LastRowsOfAPrimaryTest(PlannerTest):
    """Rows after which a primary takes no writes."""

    def assert_takes_no_writes(self, node, state, reason):
        status = node.wait_state(state)
        self.assertEqual(status["state_reason"], reason)
        self.assertEqual(node.metrics()[f'towline_state{{state="{state}"}}'], 1)
        with self.assertRaises(towline_client.TowlineError) as refused:
            node.client.write(towline_client.put(b"k", b"v"))
        self.assertEqual(refused.exception.reason, state if state == "recovery_required" else reason)
        self.assertEqual(node.http("/primary")[0], 503)

    def start(self):
        node = self.primary(f"p{len(self.nodes)}").start()
        fill(node, 100)
        self.learn(node)
        return node, node.status()["wal"]["durable_lsn"]

    def test_a_member_that_has_seen_a_higher_term(self):
        p1, lsn = self.start()
        start = self.at(lsn, "r1")
        with PullStream(p1, start):
            self.wait_joined(p1, start)
        p1.wait_slot("r1", lambda slot: slot["state"] == "inactive", "its session is over")
        # Another directory of the same name is no member.
        self.ask(p1, "2", "refuse", "stale_primary", self.at(lsn, "r1", promised_term=2, incarnation=9), [2, 1])
        self.assertEqual(p1.status()["state"], "writable")
        before = decisions(p1)
        with PullStream(p1, self.at(lsn, "r1", promised_term=2)) as stream:
            self.assertEqual((stream.decision, stream.started.reason), ("refuse", "stale_primary"))
        self.assertEqual(decisions(p1), before, "the same refusal as before")
        # It has become a replica, which waits for the primary of the higher term.
        p1.wait(lambda status: status["role"] == "replica", "steps down")
        self.assertEqual(p1.towctl("put", "k", "v", check=False).returncode, 5)
        self.assertEqual([change["reason"] for change in p1.towctl_json("status")["role_changes"]], ["stale_primary"])

    def test_a_log_that_ends_in_a_higher_term(self):
        p1, lsn = self.start()
        p1.stop()
        state_files.promise(p1.data_dir, 5)
        p1.start()
        self.assertEqual(p1.status()["term"], 5)
        # Not above the term that this node has seen, but above all that its own log holds.
        self.ask(p1, "3", "refuse", "stale_upstream", self.elsewhere(lsn - 10, lsn, "r1"), [2, 1])
        self.assertEqual(p1.status()["state"], "writable")

    def test_a_replica_that_is_ahead(self):
        for row, fields in (("7", {}), ("5", {"exact": 1000})):
            node, lsn = self.start()
            if fields:
                start = self.at(lsn, "r1", exact_from=self.exact_from(lsn + fields["exact"]))
            else:
                start = self.at(lsn + 1000, "r1", chain=1)
            slots = node.status()["slots"]
            self.ask(node, row, "refuse", "replica_ahead", start, [lsn])
            self.assert_takes_no_writes(node, "recovery_required", "replica_ahead")
            self.assertEqual(node.status()["slots"], slots)
            self.assertEqual(node.client.get(b"fill/00000000") is None, False, "reads go on")


class ReplicaRowsTest(PlannerTest):
    """A replica answers as upstream: it never refuses who has more than it, because it may get that yet."""

    def test_rows(self):
        p1, r1 = self.cluster(replicas=1, primary_options=OPTIONS, replica_options=OPTIONS)
        fill(p1, 300)
        self.wait_caught_up(p1, r1)
        self.learn(r1)
        lsn = r1.status()["wal"]["durable_lsn"]
        ahead = lsn + 1000
        for kind, prefix in ((replica_start, "r"), (consumer_start, "c")):
            self.ask(r1, "2", "retry_after", "upstream_behind", self.at(lsn, f"{prefix}-late", kind, promised_term=2),
                     [lsn, 2, 1])
            self.ask(r1, "5", "retry_after", "upstream_behind",
                     self.at(lsn, f"{prefix}-early", kind, exact_from=self.exact_from(ahead)), [lsn])
            self.ask(r1, "7", "retry_after", "upstream_behind", self.at(ahead, f"{prefix}-ahead", kind, chain=1),
                     [ahead, lsn])
            self.ask(r1, "6", "partial", f"new_{'replica' if prefix == 'r' else 'consumer'}", kind(f"{prefix}-new"))
            self.ask(r1, "11", "partial", "resumed", self.at(lsn - 7, f"{prefix}-back", kind), [lsn - 6, lsn])
        self.assertEqual((r1.status()["state"], r1.status()["resync"]["refused_total"]), ("streaming", 0))
        self.assertEqual(self.slot(p1, "r-new"), None, "its slots are its own")

        # One that has no data has nothing to serve.
        nowhere = f"127.0.0.1:{harness.free_ports(1)[0]}"
        empty = self.replica("r2", nowhere).start("disconnected")
        self.ask(empty, "0", "retry_after", "starting", self.at(lsn, "r-waits"), ["r2"])
        # One whose state is exact only from later on neither serves nor is read.
        r1.stop()
        term, _, term_id = self.history[-1]
        state_files.set_exact_from(r1.data_dir, term, term_id, ahead)
        r1.upstream = nowhere
        p1.stop()  # or it would be found among the members
        r1.start("disconnected")
        self.assertIs(r1.towctl_json("status")["exact"], False)
        self.ask(r1, "0", "retry_after", "not_exact", self.at(lsn, "r-waits", chain=self.chain(lsn)), ["r1"])
        self.assertEqual(r1.http("/readyz")[0], 503)


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


if __name__ == "__main__":
    harness.main()
