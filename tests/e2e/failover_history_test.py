#!/usr/bin/python3
"""The primary changes under clients whose history is recorded: nothing that a replica had confirmed is lost, nothing that
was discarded shows up again, and all who follow resume from the log."""

import threading

import harness
from failover_checks import FailoverTest
from harness import repetitions


class FailoverHistoryTest(FailoverTest):
    def test_promotions_after_kill_9(self):
        nodes = self.members()
        primary = nodes[0]
        with self.recorder(nodes, replicated=2, local=1) as recorder:
            for _ in range(repetitions(10, 100)):
                self.wait_going_on(recorder)
                self.random_moment()
                recorder.did(primary, "kill")
                primary.kill9()
                old, siblings = primary, [node for node in nodes if node is not primary]
                self.random.shuffle(siblings)
                primary = siblings[0]
                before = self.resyncs(primary)
                self.promote(recorder, primary)
                self.wait_follows(primary, siblings[1])
                self.wait_going_on(recorder)
                self.assertEqual(self.resyncs(primary), before)  # the sibling and the consumer went on from the log
                # What only the old primary had is given up; that may take a resync.
                recorder.justify("rewind", 1, f"{old.node_id} comes back")
                recorder.justify("full", 1, f"{old.node_id} comes back")
                recorder.did(old, "start")
                old.launch()
                self.wait_follows(primary, old)
            history = self.check(recorder, primary)
        self.assertGreaterEqual(sum(each["ok"] for each in history.promotions), repetitions(10, 100))
        self.assertGreater(sum(write.replicated for write in history.writes), 100)

    def test_switchovers_under_load(self):
        nodes = self.members()
        primary = nodes[0]
        with self.recorder(nodes, replicated=1, local=2) as recorder:
            for _ in range(repetitions(5, 50)):
                self.wait_going_on(recorder)
                old = primary
                primary = self.random.choice([node for node in nodes if node is not old])
                self.switchover(recorder, primary)
                self.wait_follows(primary, *(node for node in nodes if node is not primary))
            history = self.check(recorder, primary)
        discarded = [write for write in history.writes if write.ok and not history.is_final(write.position)]
        self.assertEqual(discarded, [])  # not even of what no replica was asked to hold
        for node in nodes:
            self.assertEqual([key for key in self.resyncs(node) if not key.startswith("refuse/")], [])
        pauses = sorted(self.pauses)
        print(f"{len(pauses)} switchovers: writes paused {pauses[len(pauses) // 2]:.1f} ms (median), {pauses[-1]:.1f} ms "
              "(longest)", flush=True)

    def test_a_primary_that_is_stopped_across_a_promotion(self):
        n1, n2, n3 = nodes = self.members()
        with self.recorder(nodes, replicated=2, local=1) as recorder:
            for _ in range(repetitions(1, 10)):
                self.wait_going_on(recorder)
                self.random_moment()
                recorder.did(n1, "pause")
                n1.pause()
                before = self.resyncs(n2)
                self.promote(recorder, n2)
                self.wait_follows(n2, n3)
                self.wait_going_on(recorder)
                self.assertEqual(self.resyncs(n2), before)
                recorder.justify("rewind", 1, "n1 comes back")
                recorder.justify("full", 1, "n1 comes back")
                recorder.did(n1, "resume")
                n1.resume()
                n1.wait(lambda status: status["role"] == "replica", "it has heard of the new primary")
                self.wait_follows(n2, n1)
                self.wait_going_on(recorder)
                self.switchover(recorder, n1)
                self.wait_follows(n1, n2, n3)
            self.check(recorder, n1)

    def test_two_promotions_at_once(self):
        nodes = self.members()
        primary = nodes[0]
        with self.recorder(nodes) as recorder:
            for _ in range(repetitions(3, 30)):
                self.wait_going_on(recorder)
                recorder.did(primary, "kill")
                primary.kill9()
                old, candidates = primary, [node for node in nodes if node is not primary]
                reports = {}

                def race(node):
                    reports[node.node_id] = self.try_promote(recorder, node)

                threads = [threading.Thread(target=race, args=(node,)) for node in candidates]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(60 * harness.SLOW)
                done = {report.term: node_id for node_id, report in reports.items() if report}
                self.assertEqual(len(done), sum(report is not None for report in reports.values()), reports)
                if done:
                    primary = next(node for node in candidates if node.node_id == done[max(done)])
                else:  # each had the promise of one: the remedy is a higher term
                    primary = self.random.choice(candidates)
                    self.promote(recorder, primary)
                primary.wait_state("writable")
                recorder.justify("rewind", 2, "the old primary comes back, and whoever lost the race")
                recorder.justify("full", 2, "the old primary comes back, and whoever lost the race")
                old.launch()
                self.wait_follows(primary, *(node for node in nodes if node is not primary))
            self.check(recorder, primary)

    def test_promotions_in_quick_succession(self):
        """Each primary is killed as soon as it is one, and the one before it comes back meanwhile."""
        nodes = self.members()
        primary = nodes[0]
        with self.recorder(nodes) as recorder:
            for _ in range(repetitions(1, 10)):
                self.wait_going_on(recorder)
                for _ in range(3):
                    old, candidates = primary, [node for node in nodes if node is not primary]
                    recorder.did(old, "kill")
                    old.kill9()
                    primary = self.promote_any(recorder, candidates)
                    recorder.justify("rewind", 1, f"{old.node_id} comes back")
                    recorder.justify("full", 1, f"{old.node_id} comes back")
                    old.launch()
                self.wait_follows(primary, *(node for node in nodes if node is not primary))
            self.check(recorder, primary)


if __name__ == "__main__":
    harness.main()
