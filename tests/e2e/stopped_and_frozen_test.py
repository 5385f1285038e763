#!/usr/bin/python3
"""A replica that is away for good, or stands still, costs nobody else anything; disk and memory keep their limits."""

import contextlib
import re
import subprocess
import time

import harness
from harness import NodeTest, repetitions, wait_until
from sampler import Sampler
from workload import StreamWriter, fill

MIB = 1 << 20
SEGMENT = 4 * MIB
LIMIT = 16 * MIB
SPARES = 1
SMALL_LOG = {"wal.segment_bytes": f"{SEGMENT}B", "wal.spare_segments": SPARES, "wal.keep_bytes": "4MiB",
             "slots.max_retained_bytes": f"{LIMIT}B", "store.flush_bytes": "8MiB", "store.flush_interval": "1s"}
CREDIT = 8 * MIB  # replication.credit_bytes


def log_on_disk(node):
    """Sizes of all segment files, those that are prepared for later included. (An index has half a promille of one.)"""
    total = 0
    for file in node.data_dir.glob("gen/*/wal/*.seg"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


class StoppedTest(NodeTest):
    def invalidations(self, node):
        return {name: value for name, value in node.metrics().items()
                if name.startswith("towline_slot_invalidations_total")}

    def test_a_replica_that_is_stopped_loses_its_slot_and_nobody_else_notices(self):
        p1, r1, r2 = self.cluster(replicas=2, primary_options=SMALL_LOG, replica_options=SMALL_LOG)
        fill(p1, 500)
        self.wait_caught_up(p1, r1, r2)
        r1.kill9()
        counted = 'towline_slot_invalidations_total{cause="retained_bytes"}'
        # About 8 MB a second, so that a machine that is busy with other things still looks at the limits in time.
        with Sampler(lambda: log_on_disk(p1)) as disk, \
                StreamWriter(p1, value_bytes=4000, batch=8, pace_seconds=0.003) as writer:
            p1.wait_slot("r1", lambda slot: slot["retained_bytes"] > LIMIT // 2, "it holds the log back")
            self.assertEqual(self.invalidations(p1), {})
            p1.wait_slot("r1", lambda slot: slot["state"] == "invalidated", "invalidated")
            slot = self.slot(p1, "r1")
            self.assertEqual((slot["health"], slot["retained_bytes"]), ("lost", 0))
            self.assertEqual(slot["invalidation"]["cause"], "retained_bytes")
            self.assertEqual(slot["invalidation"]["needed_lsn"], slot["confirmed_lsn"] + 1)
            needed = slot["invalidation"]["needed_lsn"]
            p1.wait(lambda status: status["wal"]["first_lsn"] > needed, "its log is removed")
            writer.wait_acked(2000)
            self.assertEqual(self.invalidations(p1), {counted: 1})

            r1.start(timeout=60)
            slot = p1.wait_slot("r1", lambda slot: slot["state"] == "active", "it revives by itself")
            self.assertEqual((slot["health"], slot["invalidation"]), ("reserved", None))
            # No loop: more than the limit is written with the owner back, who also restarts now and then.
            for run in range(3):
                before = p1.status()["resync"]["partial_total"]
                r1.kill9() if run % 2 == 0 else r1.stop()
                p1.wait_slot("r1", lambda slot: slot["state"] == "inactive", "the old session is over")
                r1.start()
                p1.wait(lambda status: status["resync"]["partial_total"] == before + 1, "a partial resync")
                target = log_bytes(p1) + LIMIT // 2
                wait_until(lambda: log_bytes(p1) > target, "half the limit is written", timeout=60)
            writer.stop()
        # The first segment may be needed for its last record, the newest hold its first only.
        self.assertLessEqual(disk.highest, LIMIT + (2 + SPARES) * SEGMENT)
        self.assertGreater(disk.highest, LIMIT)
        self.assertEqual((writer.refused, writer.streams), ({}, 1), "no write failed")
        self.assert_same_data(p1, r1, r2)
        writer.check(self, r1, r2)
        status = p1.status()
        self.assertEqual(status["resync"]["by_reason"],
                         {"partial/new_replica": 2, "full/retained_bytes": 1, "partial/resumed": 3})
        self.assertEqual(self.invalidations(p1), {counted: 1})
        self.assertEqual(p1.metrics()["towline_replication_stalls_total"], 0)
        self.assertEqual(len(re.findall(r"slot_invalidated\b", p1.log())), 1)


def log_bytes(node):
    """Bytes that were ever written to the log since the node started."""
    return node.metrics()["towline_wal_append_bytes_total"]


class FrozenTest(NodeTest):
    PHASE_SECONDS = repetitions(10, 60)

    @contextlib.contextmanager
    def full_load(self, node):
        """As many writes as the machine allows."""
        process = subprocess.Popen(
            [harness.TOWCTL, "--endpoint", node.endpoint, "bench", "--mode", "stream", "--batch", "64", "--in-flight",
             "16", "--key-space", "20000", "--no-ceiling", "--warmup", "0s", "--seconds", "1h"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process
            self.assertIsNone(process.poll(), "the writer has ended")
        finally:
            process.kill()
            process.wait()

    def phase(self, node):
        """The largest private memory of the node while PHASE_SECONDS go by; here the time itself is the test."""
        before = node.status()["wal"]["durable_lsn"]
        with Sampler(node.private_bytes) as memory:
            time.sleep(self.PHASE_SECONDS)
        return memory.highest, node.status()["wal"]["durable_lsn"] - before

    def test_a_frozen_replica_costs_no_memory_and_needs_no_snapshot(self):
        # What memory depends on the amount written is bounded and reached in the warm-up: memtables and block cache.
        options = {"store.flush_bytes": "8MiB", "store.cache_bytes": "8MiB", "wal.keep_bytes": "64MiB",
                   "slots.max_retained_bytes": "64GiB"}
        p1, r1, r2 = self.cluster(replicas=2, primary_options=options, replica_options=options)
        with self.full_load(p1):
            wait_until(lambda: log_bytes(p1) > 256 * MIB, "warm", timeout=60)
            control, control_records = self.phase(p1)
            r1.pause()
            frozen, frozen_records = self.phase(p1)
            lag = next(replica for replica in p1.status()["replicas"] if replica["slot"] == "r1")["lag_bytes"]
            r1.resume()
        print(f"\nprivate memory of the primary: at most {control / MIB:.1f} MiB in {self.PHASE_SECONDS} s with all "
              f"replicas ({control_records} records), {frozen / MIB:.1f} MiB with one frozen ({frozen_records} "
              f"records, {lag / MIB:.0f} MiB of log behind)", flush=True)
        self.assertGreater(lag, 4 * CREDIT, "it was behind by far more than its credit")
        if harness.SLOW == 1:  # sanitizers keep freed memory
            self.assertLess(frozen - control, 2 * CREDIT)
        self.assert_same_data(p1, r1, r2, timeout=120)
        resync = p1.status()["resync"]
        self.assertEqual((resync["full_total"], resync["rewind_total"]), (0, 0), resync)
        # The same session or, if it was given up meanwhile, a partial resync.
        self.assertIn(resync["by_reason"].pop("partial/resumed", 0), (0, 1))
        self.assertEqual(resync["by_reason"], {"partial/new_replica": 2})
        slot = self.slot(p1, "r1")
        self.assertEqual((slot["state"], slot["invalidation"]), ("active", None))


if __name__ == "__main__":
    harness.main()
