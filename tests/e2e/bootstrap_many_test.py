#!/usr/bin/python3
"""Eight replicas that need a snapshot at once: few snapshots, little memory, nobody fails, all converge."""

import pathlib

import harness
from bootstrap_checks import MIB, SMALL_LOG, BootstrapTest, Totals
from harness import repetitions, wait_until
from sampler import Sampler
from workload import StreamWriter, fill

REPLICAS = 8
RECORDS = 30_000      # about 30 MiB: eight of them in memory would be seen
MEMORY_MAX = 200 * MIB
SNAPSHOTS_MAX = 2


def resident_bytes(node):
    status = pathlib.Path(f"/proc/{node.process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


class BootstrapManyTest(BootstrapTest):
    def converge(self, runs, options, refusal):
        """Eight new replicas, then `runs` - 1 times the same with their directories wiped."""
        p1 = self.primary(options={**SMALL_LOG, **options, "bootstrap.max_snapshots": SNAPSHOTS_MAX}).start()
        fill(p1, RECORDS)
        self.wait_pruned(p1)
        replicas = [self.replica(f"r{i}", p1, options=SMALL_LOG) for i in range(REPLICAS)]
        totals = Totals(p1)
        for run in range(runs):
            for node in replicas:
                if node.running:
                    node.kill9()
                self.forget(node)
            full = totals.full_resyncs()
            idle = resident_bytes(p1)
            with Sampler(p1.metrics, 0.05) as samples, Sampler(lambda: resident_bytes(p1), 0.05) as memory, \
                    StreamWriter(p1, prefix=f"w{run}/", value_bytes=200, pace_seconds=0.01) as writer:
                for node in replicas:
                    node.launch()
                self.wait_refused(replicas, refusal)
                for node in replicas:
                    node.wait_state("streaming", timeout=60)
                writer.stop()
            self.assert_same_data(p1, *replicas)
            writer.check(self, *replicas)
            live = [sample["towline_snapshots_live"] for sample in samples.values]
            print(f"  {max(live):g} snapshots, {(memory.highest - idle) / MIB:.0f} MiB above idle", flush=True)
            self.assertGreaterEqual(max(live), 1)
            self.assertLessEqual(max(live), SNAPSHOTS_MAX)
            self.assertLessEqual(memory.highest, idle + MEMORY_MAX)
            self.assertEqual(totals.full_resyncs(), full + REPLICAS)
            for node in replicas:
                self.assertEqual(len(self.finished(node)), run + 1)
                # Who was told to come again has not failed.
                for event in ("bootstrap_failed", "replica_halted"):
                    self.assertNotIn(f" {event} ", node.log())
        return p1

    def wait_refused(self, replicas, refusal):
        def refused():
            for node in replicas:
                status = node.try_status()
                upstream = None if status is None else status["upstream"]
                if upstream is not None and upstream["state"] == "retry_after":
                    self.assertRegex(upstream["message"], refusal)
                    self.assertNotEqual(status["state"], "halted")
                    return True
            return False

        wait_until(refused, "a replica is told to come again")

    def test_they_share_one_snapshot(self):
        runs = repetitions(2, 10)
        p1 = self.converge(runs, {"bootstrap.max_sessions": 3}, "3 snapshots are being sent already")
        streams = p1.metrics()
        self.assertEqual(streams['towline_snapshot_streams_total{how="new"}'] +
                         streams['towline_snapshot_streams_total{how="joined"}'], REPLICAS * runs)
        self.assertGreaterEqual(streams['towline_snapshot_streams_total{how="joined"}'], REPLICAS - SNAPSHOTS_MAX)

    def test_nobody_may_join(self):
        self.converge(repetitions(1, 5), {"bootstrap.max_sessions": REPLICAS, "bootstrap.join_window": "0s",
                                          "bootstrap.rate_limit": "60MiB"}, "2 snapshots are live")


if __name__ == "__main__":
    harness.main()
