#!/usr/bin/python3
"""kill -9 of the primary at random moments: everything acknowledged survives, and nobody has to help."""

import harness
from harness import NodeTest, repetitions
from workload import StreamWriter


class KillPrimaryTest(NodeTest):
    def kill_at_a_random_moment(self, node, longest_seconds):
        """Waits a random time and kills: here the time itself is the test."""
        harness.time.sleep(self.random.uniform(0, longest_seconds))
        node.kill9()

    def test_acknowledged_writes_survive(self):
        p1, r1, r2 = self.cluster(replicas=2, primary_options={"wal.segment_bytes": "2MiB"},
                                  replica_options={"wal.segment_bytes": "2MiB"})
        runs = repetitions(5)
        with StreamWriter(p1, value_bytes=400) as writer:
            for run in range(runs):
                writer.wait_acked(200)
                self.kill_at_a_random_moment(p1, 0.4)
                if run % 2 == 1:  # again, while it recovers
                    p1.launch()
                    self.kill_at_a_random_moment(p1, 0.15)
                p1.start()
            writer.wait_acked(200)
            writer.stop()
        for node in (r1, r2):
            node.wait_state("streaming")
        digest = self.assert_same_data(p1, r1, r2)
        writer.check(self, p1, r1, r2)
        self.assertGreaterEqual(digest.keys, writer.acked_count())
        self.assertGreaterEqual(writer.streams, runs + 1)
        status = p1.status()
        self.assertEqual(status["term"], 1)
        self.assertEqual((status["resync"]["full_total"], status["resync"]["rewind_total"]), (0, 0), status["resync"])

    def test_everything_is_killed_at_once(self):
        nodes = self.cluster(replicas=2)
        with StreamWriter(nodes[0]) as writer:
            for _ in range(repetitions(3)):
                writer.wait_acked(200)
                order = list(nodes)
                self.random.shuffle(order)
                for node in order:
                    node.kill9()
                for node in order:
                    node.launch()
                for node in nodes:
                    node.wait_state(*node.healthy_states())
            writer.wait_acked(200)
            writer.stop()
        self.assert_same_data(*nodes)
        writer.check(self, *nodes)
        self.assertEqual(nodes[0].status()["resync"]["full_total"], 0)


if __name__ == "__main__":
    harness.main()
