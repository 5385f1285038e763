#!/usr/bin/python3
"""Every row of the table in docs/guides/resync.md, through a real node: the answer, its numbers, and what is counted.

Row 3 is out of reach: a node's term is that of its log until there are promises."""

import json
import re

import control_file
import harness
import pull_client
from harness import NodeTest, wait_until
from pull_client import PullStream, SnapshotStream, consumer_start, history, replica_start
from towline.v1 import slot_service_pb2, types_pb2
from workload import fill

MIB = 1 << 20
OPTIONS = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "6MiB", "wal.spare_segments": "1",
           "bootstrap.replay_max_bytes": "2MiB", "store.flush_bytes": "1MiB", "store.flush_interval": "100ms",
           "slots.persist_interval": "50ms", "wal.scrub_rate": "0B"}
OTHER_CLUSTER = "0123456789abcdef01234567"
TERM_ID_2 = 0xb2
ELSEWHERE = 0xc3  # term_id of a promotion that this log does not hold
REFUSALS = ("refuse", "retry_after")


def decisions(node):
    """Counters of both kinds by decision and reason, as status and metrics tell. They are asked one after the other, so
    that they differ while something is being counted."""
    return wait_until(lambda: agreed_decisions(node), "status and metrics count the same", timeout=5)


def agreed_decisions(node):
    by_kind = {"resync": {}, "consumer": {}}
    metrics = node.metrics()
    for name, value in metrics.items():
        found = re.fullmatch(r'towline_(\w+)_decisions_total\{decision="(\w+)",reason="(\w+)"\}', name)
        if found:
            by_kind[found[1]][f"{found[2]}/{found[3]}"] = int(value)
    resync = node.towctl_json("status")["resync"]
    same = resync["by_reason"] == by_kind["resync"]
    for total, decision in (("partial_total", "partial"), ("full_total", "full"), ("rewind_total", "rewind"),
                            ("refused_total", "refuse")):
        expected = sum(count for key, count in by_kind["resync"].items() if key.split("/")[0] == decision)
        same = same and resync[total] == expected == metrics[f"towline_resync_{total}"]
    return by_kind if same else None


class PlannerTest(NodeTest):
    """Asks nodes and checks what they answer."""

    def assert_slot(self, node, name, state, cause=None):
        """The slot as `towctl status` and the metrics show it; returns the former."""
        shown = {"state": state, "cause": cause}

        def matches():
            slots = {slot["name"]: slot for slot in node.towctl_json("status")["slots"]}
            slot = slots.get(name)
            shown["last"] = slot
            if slot is None or slot["state"] != state:
                return None
            if (slot["invalidation"] or {}).get("cause") != cause:
                return None
            metrics = node.metrics()
            one_hot = {other: metrics[f'towline_slot_state{{slot="{name}",state="{other}"}}']
                       for other in ("active", "inactive", "bootstrapping", "rewinding", "invalidated")}
            return slot if one_hot == {other: float(other == state) for other in one_hot} else None

        return wait_until(matches, f"slot {name} is {state} {cause or ''}", describe=lambda: shown["last"])

    def assert_counted(self, node, start, before, *keys):
        """What was counted since `before` is `keys`, once each."""
        kind = "resync" if start.kind == pull_client.REPLICA else "consumer"
        expected = {name: dict(counts) for name, counts in before.items()}
        for key in keys:
            expected[kind][key] = expected[kind].get(key, 0) + 1
        wait_until(lambda: decisions(node) == expected, f"counted is {expected}", describe=lambda: decisions(node))
        return expected

    def logged_row(self, node, start):
        """Row of the newest decision about the slot."""
        lines = [line for line in node.log().splitlines() if f" resync_decision node={node.node_id} node={start.slot} "
                 in line]
        return re.search(r" row=(\w+) ", lines[-1])[1]

    def ask(self, node, row, decision, reason, start, numbers=()):
        """Asks and checks the answer, which names `numbers` and is what PlanResume said before without any effect. Then
        takes the decision to its end and checks that it counts once, when it takes effect."""
        before = decisions(node)
        slots = node.status()["slots"]
        planned = pull_client.plan(node, start).plan
        self.assertEqual(decisions(node), before, "a plan counts nothing")
        self.assertEqual([slot["name"] for slot in node.status()["slots"]], [slot["name"] for slot in slots])
        with PullStream(node, start) as stream:
            started = stream.started
            self.assertEqual((stream.decision, started.reason), (decision, reason), started.message)
            self.assertEqual(self.logged_row(node, start), row)
            for name in ("decision", "reason", "message", "next_action", "cluster_id", "from_lsn", "common_lsn",
                         "first_retained_lsn", "retry_after_ms", "term"):
                self.assertEqual(getattr(planned, name), getattr(started, name), name)
            for number in numbers:
                self.assertRegex(started.message, rf"\b{number}\b")
            key = f"{decision}/{reason}"
            if decision in REFUSALS:
                self.assertGreater(started.retry_after_ms, 0)
                counted = self.assert_counted(node, start, before, key)
                with PullStream(node, start) as again:
                    self.assertEqual(again.started.reason, reason)
                self.assertEqual(decisions(node), counted, "the same refusal of the same owner counts once")
                return started
            self.assertEqual(decisions(node), before, "nothing has taken effect yet")
            if decision == "partial":
                self.stream(node, stream, start, before, key)
            elif decision == "full":
                self.load(node, start, before, key)
            else:
                self.rewind(node, start, started, before, key)
            return started

    def stream(self, node, stream, start, before, key):
        """Reads to the end and acknowledges it."""
        self.assertNotEqual(stream.started.session_id, 0)
        stream.receive(stream.started.durable_lsn)
        stream.ack(stream.lsn)
        self.assert_counted(node, start, before, key)
        self.assert_slot(node, start.slot, "active")
        stream.ack(stream.lsn)
        node.wait_slot(start.slot, lambda slot: slot["confirmed_lsn"] == stream.lsn, "the ack is taken")
        self.assert_counted(node, start, before, key)
        stream.close()
        self.assert_slot(node, start.slot, "inactive")

    def load(self, node, start, before, key):
        snapshot = SnapshotStream(node, start)
        self.assertEqual(snapshot.header.reason, key.split("/")[1])
        slot = self.assert_slot(node, start.slot, "bootstrapping")
        position = snapshot.header.position
        self.assertEqual(slot["confirmed_lsn"], position.lsn)
        self.assertGreater(snapshot.finish().chunks, 0)
        self.assertEqual(decisions(node), before, "a snapshot alone is no resync")
        behind = replica_start(start.slot, incarnation=start.incarnation, cluster_id=position.cluster_id,
                               lsn=position.lsn, chain=position.chain, first_retained_lsn=position.lsn + 1,
                               history=snapshot.header.history)
        with PullStream(node, behind) as stream:
            self.assertEqual((stream.decision, stream.started.from_lsn), ("partial", position.lsn + 1))
            self.stream(node, stream, start, before, key)

    def rewind(self, node, start, started, before, key):
        slot = self.assert_slot(node, start.slot, "rewinding")
        self.assertEqual(slot["confirmed_lsn"], started.common_lsn, "it holds what the owner will need")
        back = self.at(started.common_lsn, start.slot, incarnation=start.incarnation)
        with PullStream(node, back) as stream:
            self.assertEqual((stream.decision, stream.started.from_lsn), ("partial", started.common_lsn + 1))
            self.stream(node, stream, start, before, key)

    # --- Starts ---

    def learn(self, node):
        """Remembers the line that `node` is on."""
        status = node.status()
        self.node = node
        self.chains = {}  # LSN -> chain behind it
        self.cluster_id = status["cluster_id"]
        self.history = [(entry["term"], entry["start_lsn"], int(entry["term_id"], 16)) for entry in status["history"]]

    def chain(self, lsn):
        if lsn not in self.chains:
            dump = harness.towctl("wal", "dump", "--data-dir", self.node.data_dir, "--from", lsn, "-o", "json")
            for record in map(json.loads, dump.stdout.splitlines()):
                self.chains[record["lsn"]] = int(record["chain"], 16)
        return self.chains[lsn]

    def at(self, lsn, slot, kind=replica_start, **fields):
        """A start from that record of our line."""
        own = [entry for entry in self.history if entry[1] <= lsn]
        defaults = dict(cluster_id=self.cluster_id, lsn=lsn, history=history(*own))
        if kind is replica_start:
            defaults.update(first_retained_lsn=1)
        if "chain" not in fields and lsn <= self.node.status()["wal"]["durable_lsn"]:
            defaults.update(chain=self.chain(lsn))
        return kind(slot, **{**defaults, **fields})

    def elsewhere(self, common, lsn, slot, kind=replica_start, **fields):
        """A start from a record of another term 2, which left our line behind record `common`."""
        return self.at(lsn, slot, kind, chain=1,
                       history=history(self.history[0], (2, common + 1, ELSEWHERE)), **fields)

    def exact_from(self, lsn, term_id=None, **fields):
        term, _, own_id = self.history[-1]
        return types_pb2.Position(cluster_id=self.cluster_id, lsn=lsn, term=term, term_id=term_id or own_id, **fields)

    def drop_slots(self, node):
        for slot in node.status()["slots"]:
            node.client.slots.DropSlot(slot_service_pb2.DropSlotRequest(name=slot["name"], force=True))


class PrimaryRowsTest(PlannerTest):
    def start_in_term_2(self):
        """A primary whose log has two terms."""
        p1 = self.primary(options=OPTIONS).start()
        first = fill(p1, 200)
        p1.stop()
        control_file.add_term(p1.data_dir, 2, first + 1, TERM_ID_2)
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
        with PullStream(p1, self.at(250, "r-finds")) as stream:
            self.assertEqual(stream.decision, "partial")
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

    def wait_pruned(self, node):
        """Waits until nothing more is removed; returns the first LSN that is left."""
        seen = []

        def settled():
            seen.append(node.status()["wal"]["first_lsn"])
            return seen[-1] > 400 and seen[-8:] == [seen[-1]] * 8

        wait_until(settled, "the log is pruned", interval=0.05, describe=lambda: seen[-8:])
        return seen[-1]

    def check_a_pruned_log(self, p1):
        fill(p1, 12000, prefix="huge/")
        first = self.wait_pruned(p1)
        self.ask(p1, "6", "full", "new_replica", replica_start("r-pruned"), [1, first])
        started = self.ask(p1, "6", "refuse", "wal_removed", consumer_start("c-pruned"), [1, first])
        self.assertRegex(started.next_action, rf"\b{first - 1}\b")
        self.ask(p1, "10", "full", "wal_removed", self.at(250, "r-gone", chain=1), [251, first])
        started = self.ask(p1, "10", "refuse", "wal_removed", self.at(250, "c-gone", consumer_start, chain=0),
                           [251, first])
        self.assertEqual(started.first_retained_lsn, first)


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


if __name__ == "__main__":
    harness.main()
