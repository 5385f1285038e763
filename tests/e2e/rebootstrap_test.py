#!/usr/bin/python3
"""Replicas that the log can no longer serve load a snapshot, and the reason is there to read."""

import re

import harness
from harness import NodeTest, repetitions
from workload import StreamWriter, fill

# A log so small that it forgets within a second of writing.
SMALL_LOG = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "slots.max_retained_bytes": "4MiB",
             "bootstrap.replay_max_bytes": "1MiB", "store.flush_bytes": "2MiB", "store.flush_interval": "1s"}


class RebootstrapTest(NodeTest):
    def wait_pruned(self, node):
        return node.wait(lambda status: status["wal"]["first_lsn"] > 1, "the start of the log is gone")

    def test_an_empty_replica_meets_a_pruned_log(self):
        p1 = self.primary(options=SMALL_LOG).start()
        fill(p1, 20_000)
        self.wait_pruned(p1)
        with StreamWriter(p1, value_bytes=100, pace_seconds=0.002) as writer:
            writer.wait_acked(100)
            r1 = self.replica("r1", p1, options=SMALL_LOG).start(timeout=60)
            writer.wait_acked(500)
            writer.stop()
        self.assert_same_data(p1, r1)
        writer.check(self, p1, r1)
        resync = p1.status()["resync"]
        self.assertEqual(resync["full_total"], 1, resync)
        self.assertEqual(resync["by_reason"].get("full/new_replica"), 1, resync)
        self.assertIs(r1.status()["exact"], True)
        # The loaded state is a good base for everything that follows.
        r1.kill9()
        fill(p1, 100, prefix="after/")
        r1.start()
        self.assert_same_data(p1, r1)
        self.assertEqual(p1.status()["resync"]["full_total"], 1)

    def test_a_replica_that_falls_behind_a_pruned_log(self):
        p1, r1, r2 = self.cluster(replicas=2, primary_options=SMALL_LOG, replica_options=SMALL_LOG)
        fill(p1, 500)
        self.assert_same_data(p1, r1, r2)
        for run in range(repetitions(2, 10)):
            r1.kill9()
            fill(p1, 12_000, prefix=f"run{run}/")
            self.wait_caught_up(p1, r2)
            before = p1.status()["resync"]["full_total"]  # r2 may have fallen behind so small a log, too
            slot = p1.wait_slot("r1", lambda slot: slot["state"] == "invalidated", "invalidated")
            self.assertEqual(slot["invalidation"]["cause"], "retained_bytes", slot)
            self.assertEqual((slot["health"], slot["retained_bytes"]), ("lost", 0))
            self.assertEqual(p1.towctl("status", "--check", check=False).returncode, 3)
            self.assertGreater(slot["invalidation"]["at_lsn"], slot["invalidation"]["needed_lsn"])
            needed = slot["invalidation"]["needed_lsn"]
            p1.wait(lambda status: status["wal"]["first_lsn"] > needed, "the log that it needed is gone")
            with StreamWriter(p1, prefix=f"during{run}/", value_bytes=100, pace_seconds=0.002) as writer:
                r1.start(timeout=60)
                writer.wait_acked(200)
                writer.stop()
            self.assert_same_data(p1, r1, r2)
            writer.check(self, r1)
            p1.wait(lambda status: status["resync"]["full_total"] == before + 1, "the full resync is counted")
            slot = self.slot(p1, "r1")
            self.assertEqual((slot["state"], slot["health"], slot["invalidation"]), ("active", "reserved", None))
        counted = re.findall(r"resync_counted node=p1 node=(\w+) decision=full reason=retained_bytes\b", p1.log())
        self.assertEqual(counted.count("r1"), repetitions(2, 10), counted)
        self.assertEqual(p1.status()["resync"]["by_reason"].get("full/retained_bytes"), len(counted), counted)
        # It may have been over the limit for a moment; a tick later it holds the log again.
        p1.wait_slot("r2", lambda slot: slot["invalidation"] is None, "not invalidated")
        self.assertRegex(p1.log(), r"resync_decision .*node=r1 .*decision=full reason=retained_bytes .*message=")
        self.assertRegex(p1.http("/metrics")[1], r'resync_decisions_total{decision="full",reason="retained_bytes"} [1-9]')
        self.assertEqual(p1.towctl("status", "--check").returncode, 0)

    def test_kills_during_the_snapshot(self):
        p1 = self.primary(options=SMALL_LOG).start()
        fill(p1, 40_000)
        self.wait_pruned(p1)
        r1 = self.replica("r1", p1, options=SMALL_LOG)
        for run in range(repetitions(3)):
            r1.launch()
            harness.time.sleep(self.random.uniform(0.02, 0.6))  # the moment itself is the test
            (r1 if run % 2 == 0 else p1).kill9()
            if run % 2 == 1:
                p1.start()
                r1.kill9()
        r1.start(timeout=60)
        self.assert_same_data(p1, r1)
        self.assertIs(r1.status()["exact"], True)


if __name__ == "__main__":
    harness.main()
