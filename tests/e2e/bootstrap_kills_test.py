#!/usr/bin/python3
"""Either end of a transfer is killed at any moment, and it goes on: no second full resync, the same data at its end."""

import harness
from bootstrap_checks import MIB, SMALL_LOG, BootstrapTest, Churn, Totals
from harness import repetitions
from workload import StreamWriter, fill

RECORDS = 15_000    # about 15 MiB
SENT_MAX = 1.1      # of the snapshot's size
LOST_MAX = 2 * MIB  # by a kill


class BootstrapKillsTest(BootstrapTest):
    FORM = "auto"  # files: both ends have the same engine

    def options(self, **others):
        return {**SMALL_LOG, "bootstrap.form": self.FORM, **others}

    def kill(self, totals, p1, r1, which):
        if which == "primary":
            totals.kill9()
            p1.start()
        else:
            r1.kill9()
            r1.launch()

    def lose(self, p1, r1, run):
        """Gives the replica a reason to load a snapshot: it is empty, or it is asked to."""
        if run % 2 == 0:
            r1.stop()
            self.forget(r1)
            r1.launch()
        else:
            self.request(r1)

    def test_writers_and_kills_at_random_moments(self):
        p1 = self.primary(options=self.options(**{"bootstrap.rate_limit": "10MiB"})).start()
        fill(p1, RECORDS)
        self.wait_pruned(p1)
        r1 = self.replica("r1", p1, options=self.options()).start(timeout=60)
        totals = Totals(p1)
        self.replays_hit = 0
        for run in range(repetitions(5, 50)):
            self.run_once(totals, p1, r1, run)
        print(f"  {self.replays_hit} kills while the log was replayed", flush=True)
        # A copy of files outlives its source's restart, an RDB stream rolls to a newer snapshot.
        how = {"auto": "resumed"}.get(self.FORM, "rolled")
        self.assertGreaterEqual(totals.get(f'snapshot_streams_total{{how="{how}"}}'), 1)
        # Files are exact, whichever snapshot they are of; an RDB stream that rolled needs the log.
        self.assertEqual(" bootstrap_replaying " in r1.log(), self.FORM == "rdb")
        self.assertIn(" form=" + {"auto": "files"}.get(self.FORM, self.FORM), r1.log())

    def run_once(self, totals, p1, r1, run):
        full = totals.full_resyncs()
        loads = len(self.finished(r1))
        kills = [self.random.choice(["primary", "replica"]) for _ in range(self.random.randrange(2, 5))]
        if run == 1:
            kills[0] = "primary"  # at least once the snapshot is lost
        with StreamWriter(p1, prefix=f"w{run}/", value_bytes=200, pace_seconds=0.01) as writer, \
                Churn(p1, RECORDS, self.random) as churn:
            self.lose(p1, r1, run)
            r1.wait(lambda status: status["bootstrap"] is not None, "the load has begun")
            taken = 0
            for number, which in enumerate(kills):
                taken += self.random.random() * (RECORDS * 1000 - taken) / 2
                # In every other run the last kill hits the replay of the log, if it is seen.
                replay = run % 2 == 1 and number == len(kills) - 1
                progress = self.wait_taken(r1, float("inf") if replay else taken)
                if progress is None:
                    break
                self.replays_hit += progress["phase"] == "replaying"
                self.kill(totals, p1, r1, which)
            r1.wait(lambda status: status["state"] == "streaming" and status["bootstrap"] is None, "it streams", 60)
            writer.wait_acked(100)
            writer.stop()
        self.assertGreater(churn.written, 0)
        self.assert_same_data(p1, r1)
        writer.check(self, p1, r1)
        self.assertIs(r1.status()["exact"], True)
        self.assertEqual(totals.full_resyncs(), full + 1, f"run {run}")
        # A kill may hit between the switch and the line about it.
        self.assertLessEqual(len(self.finished(r1)), loads + 1, f"run {run}")
        self.assert_one_generation(r1)

    def test_what_is_sent_twice(self):
        """Both ends are killed again and again in one load. What was durable is not sent again. A kill costs what was
        on its way or not yet in a commit: up to a commit (100 ms of the transfer), a chunk (1 MiB) and what the
        transport holds, on average LOST_MAX. The long form, 20 kills of 300 MB, stays below SENT_MAX with that; 6 kills
        of the 60 MB of the short form may cost a fifth."""
        kills = repetitions(3, 10)  # of each end
        records = repetitions(60_000, 300_000)
        p1 = self.primary(options=self.options(**{"bootstrap.rate_limit": repetitions("20MiB", "25MiB")})).start()
        fill(p1, records)
        self.wait_pruned(p1)
        totals = Totals(p1)
        r1 = self.replica("r1", p1, options=self.options()).launch()
        with StreamWriter(p1, value_bytes=200, pace_seconds=0.02) as writer:
            for number in range(2 * kills):
                share = (number + self.random.uniform(0.3, 1)) / (2 * kills)
                self.assertIsNotNone(self.wait_taken(r1, share * records * 980), "every kill hits the load")
                self.kill(totals, p1, r1, "primary" if number % 2 else "replica")
            r1.wait_state("streaming", timeout=60)
            writer.stop()
        self.assert_same_data(p1, r1)
        loads = self.finished(r1)
        self.assertEqual(len(loads), 1)
        size = int(loads[0]["bytes"])
        sent = totals.get("snapshot_sent_bytes_total")
        print(f"  {2 * kills} kills: {sent / MIB:.1f} MiB sent for {size / MIB:.1f} MiB, {sent / size:.3f}", flush=True)
        self.assertGreaterEqual(int(loads[0]["resumes"]), 2 * kills - 2)
        self.assertLessEqual(sent, size + 2 * kills * LOST_MAX)
        if harness.LONG:
            self.assertLessEqual(sent, SENT_MAX * size)


class RdbKillsTest(BootstrapKillsTest):
    FORM = "rdb"


if __name__ == "__main__":
    harness.main()
