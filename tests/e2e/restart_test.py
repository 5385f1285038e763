#!/usr/bin/python3
"""Owners restarted under load, in order and by kill -9: each return is one partial resync, and nothing else counts."""

import json
import signal
import subprocess

import harness
from harness import NodeTest, repetitions, wait_until
from resync_checks import counted
from workload import StreamWriter

RUNS = repetitions(10, 50)


class RestartTest(NodeTest):
    def test_a_replica(self):
        p1, r1 = self.cluster(replicas=1)
        with StreamWriter(p1, pace_seconds=0.001) as writer:
            for run in range(RUNS):
                writer.wait_acked(100)
                r1.stop() if run % 2 == 0 else r1.kill9()
                writer.wait_acked(self.random.randrange(1, 1000))
                p1.wait_slot("r1", lambda slot: slot["state"] == "inactive", "the old session is over")
                r1.start()
                p1.wait(lambda status: status["resync"]["partial_total"] == run + 2, "the partial resync is counted")
            writer.stop()
        self.assert_same_data(p1, r1)
        writer.check(self, r1)
        expected = {"partial/new_replica": 1, "partial/resumed": RUNS}
        status = p1.towctl_json("status")
        self.assertEqual(status["resync"]["by_reason"], expected)
        totals = {name: status["resync"][name] for name in ("partial_total", "full_total", "rewind_total",
                                                            "refused_total")}
        self.assertEqual(totals, {"partial_total": RUNS + 1, "full_total": 0, "rewind_total": 0, "refused_total": 0})
        metrics = p1.metrics()
        self.assertEqual(counted(metrics, "towline_resync_decisions_total"), expected)
        self.assertEqual(counted(metrics, "towline_consumer_decisions_total"), {})
        for name, value in totals.items():
            self.assertEqual(metrics[f"towline_resync_{name}"], value)
        # Nobody's session was taken from him, and no slot was lost on the way.
        self.assertEqual(metrics["towline_replication_sessions_superseded_total"], 0)
        self.assertEqual([name for name in metrics if name.startswith("towline_slot_invalidations_total")], [])

    def test_a_consumer(self):
        p1 = self.primary(options={"slots.persist_interval": "50ms"}).start()
        expected = {"partial/new_consumer": 1}
        read = 0  # everything up to here was printed
        with StreamWriter(p1, pace_seconds=0.002, batch=4) as writer:
            for run in range(RUNS + 1):
                writer.wait_acked(50)
                confirmed = self.slot(p1, "c")["confirmed_lsn"] if run else 0
                begin = ["--create", "--from", "1"] if run == 0 else []
                process = subprocess.Popen([harness.TOWCTL, "--endpoint", p1.endpoint, "tail", "--slot", "c", *begin],
                                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                try:
                    # At least once: what comes again was not confirmed, and nothing is skipped.
                    lsn = confirmed
                    target = max(p1.status()["wal"]["durable_lsn"], read + 1)
                    while lsn < target:
                        line = json.loads(process.stdout.readline())
                        self.assertEqual(line["lsn"], lsn + 1)
                        lsn += 1
                    read = max(read, lsn)
                    if run:
                        expected["partial/resumed"] = run
                    wait_until(lambda: counted(p1.metrics(), "towline_consumer_decisions_total") == expected,
                               f"counted are {expected}", describe=p1.metrics)
                    process.send_signal(signal.SIGINT if run % 2 == 0 else signal.SIGKILL)
                    process.stdout.close()
                    process.wait(20 * harness.SLOW)
                finally:
                    process.kill()
                p1.wait_slot("c", lambda slot: slot["state"] == "inactive", "the session is over")
            writer.stop()
        self.assertEqual(counted(p1.metrics(), "towline_consumer_decisions_total"), expected)
        self.assertEqual(p1.status()["resync"]["by_reason"], {}, "consumers are counted apart")


if __name__ == "__main__":
    harness.main()
