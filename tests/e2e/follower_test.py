#!/usr/bin/python3
"""The Python follower: a copy in SQLite that is exact whatever dies, and says so when it cannot be."""

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import harness
from harness import NodeTest, repetitions, wait_until
from towline_client import delete, delete_range, message, put
from workload import StreamWriter, fill

SMALL_LOG = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "store.flush_bytes": "2MiB",
             "store.flush_interval": "1s", "slots.max_retained_bytes": "3MiB"}


class Follower:
    """One follower.py process after the other, on one database."""

    def __init__(self, test, name="copy", slot="copy"):
        self.database = test.directory / f"{name}.db"
        self.slot = slot
        self.log_path = test.directory / f"{name}.log"
        self.process = None
        test.addCleanup(self.kill9)

    def start(self, node, *arguments):
        with open(self.log_path, "ab") as log:
            self._log_begin = log.tell()
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-B", str(harness.EXAMPLES / "follower.py"),
                 "--stubs", harness.STUBS, "--endpoint", node.endpoint, "--slot", self.slot, *map(str, arguments),
                 str(self.database)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        return self

    def run(self, node, *arguments):
        """Exit code of a run that ends by itself."""
        self.start(node, *arguments)
        return self.wait_exit()

    def wait_exit(self):
        return self.process.wait(60 * harness.SLOW)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.wait_exit()

    def kill9(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def log(self):
        return self.log_path.read_text()

    def query(self, sql):
        database = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            return database.execute(sql).fetchall()
        except sqlite3.OperationalError:  # it has not made its tables yet
            return []
        finally:
            database.close()

    def lsn(self):
        """LSN that the copy shows; 0 = it shows nothing."""
        rows = self.query("SELECT lsn FROM position") if self.database.exists() else []
        return rows[0][0] if rows else 0

    def wait_lsn(self, lsn):
        def reached():
            assert self.process.poll() is None, f"the follower ended:\n{self.log()}"
            return self.lsn() >= lsn

        wait_until(reached, f"the copy shows LSN {lsn}", describe=lambda: f"LSN {self.lsn()}\n{self.log()}")

    def wait_log(self, text):
        """Waits until the running process has said that."""
        wait_until(lambda: text in self.log()[self._log_begin:], f"{text!r} in the follower's log", describe=self.log)

    def messages(self):
        return [payload for payload, in self.query("SELECT payload FROM messages ORDER BY lsn, number")]


class FollowerTest(NodeTest):
    def assert_equal_at_one_lsn(self, node, follower, *arguments):
        """Brings the copy to where a pinned scan of the node stands, and compares all there is: keys, values, expiry,
        last-modified LSN, chain. Writes may go on."""
        entries = {}
        for page in node.client.scan_pages(pinned=True):
            entries.update((entry.key, (entry.value, entry.expire_at_ms, entry.modified_lsn)) for entry in page.entries)
        now_ms = time.time_ns() // 1_000_000
        self.assertLessEqual(follower.lsn(), page.position.lsn)
        code = follower.run(node, "--until-lsn", page.position.lsn, *arguments)
        self.assertEqual(code, 0, follower.log())
        self.assertEqual(follower.query("SELECT cluster_id, lsn, chain FROM position"),
                         [(page.position.cluster_id, page.position.lsn, f"{page.position.chain:016x}")])
        copied = {key: rest for key, *rest in
                  follower.query("SELECT key, value, expire_at_ms, modified_lsn FROM entries")}

        def lasting(entries):  # a key that had expired is hidden by the node, and deleted by a later record
            return {key: tuple(rest) for key, rest in entries.items() if rest[1] == 0 or rest[1] > now_ms}

        self.assertEqual(lasting(copied), lasting(entries))
        self.assertGreater(len(entries), 0)

    def write_all_kinds(self, client, number):
        """Records of every kind of operation; returns the payloads of the messages in them."""
        name = b"kinds/%d/" % number
        client.write(put(name + b"a", b"1"), put(name + b"b", b"2"), put(name + b"c", b""),
                     message(b"first", name + b"1"), put(name + b"a", b"the later one wins"),
                     message(b"second", name + b"2"))
        client.write(delete_range(name + b"b", name + b"c"), delete(name + b"absent"))
        client.write(put(name + b"short", b"x", ttl_ms=1), put(name + b"long", b"y", ttl_ms=3_600_000))
        client.write(delete_range(b"", b"a-first/"), put(b"\x00\xff", b"\xff\x00"))
        return [name + b"1", name + b"2"]

    def test_scans_then_streams(self):
        p1 = self.primary(options={"slots.auto_create": "false", "expiry.interval": "50ms"}).start()
        fill(p1, 10_000, prefix="before/", value_bytes=50)
        p1.client.write(put(b"expires/soon", b"1", ttl_ms=100), put(b"expires/late", b"2", ttl_ms=3_600_000))
        p1.client.write(message(b"topic", b"before the slot"))
        follower = Follower(self)
        with StreamWriter(p1, prefix="w/", value_bytes=100, pace_seconds=0.01) as writer:
            writer.wait_acked(100)
            follower.start(p1)
            follower.wait_log("resumed: from LSN")
            scanned_lsn, held_lsn = map(int, re.search(r"at LSN (\d+); .* behind LSN (\d+)", follower.log()).groups())
            self.assertLessEqual(held_lsn, scanned_lsn, "the slot holds all that the scan does not show")
            sent = [payload for number in range(5) for payload in self.write_all_kinds(p1.client, number)]
            p1.client.write(delete_range(b"before/", b"before/00005000"))
            lsn = p1.client.write(message(b"topic", b"last"))
            follower.wait_lsn(lsn)
            # In step: what is acknowledged to the slot is no more than what the copy shows.
            slot = p1.wait_slot("copy", lambda slot: slot["confirmed_lsn"] >= lsn, "acknowledged")
            self.assertLessEqual(slot["confirmed_lsn"], follower.lsn())
            self.assertEqual((slot["state"], slot["kind"], slot["health"]), ("active", "consumer", "reserved"))
            self.assertEqual(follower.stop(), 0, follower.log())
            self.assertGreater(writer.acked_count(), 100)
            self.assert_equal_at_one_lsn(p1, follower)  # while writes go on
            writer.stop()
        self.assertEqual(follower.messages(), [*sent, b"last"], "the slot began behind the first one")
        self.assertGreater(scanned_lsn, 10_000)
        # Whoever reads the log needs no clock: an expired key is deleted by a record.
        gone = [b"expires/soon", *(b"kinds/%d/short" % number for number in range(5))]
        p1.wait(lambda status: not self.raw_keys(p1, b"expires/s"), "expired")
        wait_until(lambda: self.copied(follower, p1, gone) == [], "expired keys leave the copy")
        self.assert_equal_at_one_lsn(p1, follower)
        writer.check(self, p1)

    def raw_keys(self, node, prefix):
        return [entry.key for entry in node.client.scan(prefix)]

    def copied(self, follower, node, keys):
        """Those of `keys` that the copy holds when it has everything that is durable now."""
        self.assertEqual(follower.run(node, "--until-lsn", node.status()["wal"]["durable_lsn"]), 0, follower.log())
        held = {key for key, in follower.query("SELECT key FROM entries")}
        return [key for key in keys if key in held]

    def test_killed_at_any_moment(self):
        p1 = self.primary(options={"slots.persist_interval": "50ms"}).start()
        fill(p1, 2000, prefix="before/", value_bytes=50)
        follower = Follower(self)
        sent = []
        with StreamWriter(p1, prefix="w/", value_bytes=100, pace_seconds=0.02) as writer:
            writer.wait_acked(100)
            follower.start(p1)
            follower.wait_log("resumed: from LSN")
            for run in range(repetitions(4, 40)):
                follower.wait_lsn(follower.lsn() + self.random.randrange(1, 200))
                sent += self.write_all_kinds(p1.client, run)
                if run % 3 == 1:  # the follower sees its server die
                    p1.kill9()
                    p1.start()
                    follower.wait_lsn(p1.status()["wal"]["durable_lsn"])
                # In the middle of what must be there once: applying a put twice would not show.
                for number in range(self.random.randrange(20, 60)):
                    sent.append(b"%d of run %d" % (number, run))
                    p1.client.write(message(b"once", sent[-1]))
                follower.kill9()
                before = follower.lsn()
                slot = self.slot(p1, "copy")
                self.assertLessEqual(slot["confirmed_lsn"], before, "acknowledged before it was durable")
                follower.start(p1)
            follower.wait_log("resumed: from LSN")
            writer.stop()
        self.assertEqual(follower.stop(), 0, follower.log())
        self.assert_equal_at_one_lsn(p1, follower)
        self.assertEqual(follower.messages(), sent, "each once, in order")
        self.assertEqual(follower.log().count("scanned"), 1, "resumed from the log each time")
        writer.check(self, p1)

    def test_a_lost_position_is_scanned_again_on_request(self):
        p1 = self.primary(options={**SMALL_LOG, "slots.auto_create": "false"}).start()
        fill(p1, 500)
        follower = Follower(self)
        self.assert_equal_at_one_lsn(p1, follower)
        p1.client.write(delete(b"fill/00000007"))
        fill(p1, 10_000, prefix="more/")
        slot = p1.wait_slot("copy", lambda slot: slot["health"] == "lost", "lost")
        self.assertEqual(slot["invalidation"]["cause"], "retained_bytes")
        lsn = follower.lsn()
        p1.wait(lambda status: status["wal"]["first_lsn"] > lsn + 1, "pruned")
        self.assertEqual(follower.run(p1), 4, follower.log())
        self.assertIn("retained_bytes", follower.log())
        self.assertIn("--rescan", follower.log())
        self.assertEqual(follower.lsn(), lsn, "the copy stays as it is")
        self.assert_equal_at_one_lsn(p1, follower, "--rescan")
        self.assertEqual(self.slot(p1, "copy")["health"], "reserved")
        # A slot that an operator dropped is not made again behind his back.
        p1.towctl("slot", "drop", "copy", "--yes")
        self.assertEqual(follower.run(p1), 4, follower.log())
        self.assertIn("slot_not_found", follower.log())
        self.assert_equal_at_one_lsn(p1, follower, "--rescan")

    def test_a_primary_that_went_back_in_time(self):
        p1 = self.primary().start()
        fill(p1, 100)
        p1.stop()
        shutil.copytree(p1.data_dir, self.directory / "older")
        p1.start()
        follower = Follower(self)
        fill(p1, 100, prefix="lost/")
        self.assert_equal_at_one_lsn(p1, follower)
        lsn = follower.lsn()
        p1.stop()
        shutil.rmtree(p1.data_dir)
        shutil.copytree(self.directory / "older", p1.data_dir)
        p1.start()
        self.assertEqual(follower.run(p1), 4, follower.log())
        self.assertIn("ahead:", follower.log())
        fill(p1, 150, prefix="other/")  # the same LSNs, other records
        self.assertEqual(follower.run(p1), 4, follower.log())
        self.assertIn("diverged_same_term:", follower.log())
        self.assertEqual(follower.lsn(), lsn, "the copy stays as it is")
        self.assert_equal_at_one_lsn(p1, follower, "--rescan")
        # A primary with another cluster is no older copy: nothing is scanned.
        p1.stop()
        shutil.rmtree(p1.data_dir)
        p1.start()
        lsn = follower.lsn()
        self.assertEqual(follower.run(p1, "--rescan"), 4, follower.log())
        self.assertIn("cluster_mismatch:", follower.log())
        self.assertEqual(follower.lsn(), lsn)

    def test_from_a_replica_one_process_after_another(self):
        p1, r1 = self.cluster(replicas=1)
        first = Follower(self, "first")
        second = Follower(self, "second")
        with StreamWriter(p1, prefix="w/", value_bytes=100, pace_seconds=0.01) as writer:
            writer.wait_acked(100)
            first.start(r1)
            first.wait_log("resumed: from LSN")
            second.start(r1)  # with a scan of its own; the slot is taken
            second.wait_log("slot_in_use")
            first.kill9()
            second.wait_log("resumed: from LSN")
            r1.kill9()
            r1.start()
            second.wait_lsn(p1.status()["wal"]["durable_lsn"])
            writer.stop()
        self.assertEqual(second.stop(), 0, second.log())
        self.wait_caught_up(p1, r1)
        self.assert_equal_at_one_lsn(r1, second)
        self.assert_equal_at_one_lsn(r1, first)
        self.assertEqual([slot["name"] for slot in p1.status()["slots"]], ["r1"], "the slot is the replica's")
        writer.check(self, p1, r1)


if __name__ == "__main__":
    harness.main()
