#!/usr/bin/python3
"""Clean stops and restarts."""

import harness
from harness import NodeTest, repetitions
from workload import StreamWriter, fill


class ShutdownTest(NodeTest):
    def test_a_clean_stop_leaves_nothing_to_replay(self):
        p1, r1 = self.cluster(replicas=1)
        lsn = fill(p1, 3000)
        self.wait_caught_up(p1, r1)
        digest = p1.digest().digest
        for node in (r1, p1):
            node.stop()
        for node in (p1, r1):
            # Persisted when it opens: the store alone had everything, so nothing was replayed.
            node.start()
            status = node.status()
            self.assertGreaterEqual(status["store"]["persisted_lsn"], lsn, node.node_id)
        self.assertEqual(self.assert_same_data(p1, r1).digest, digest)
        self.assertEqual(p1.status()["resync"]["by_reason"], {"partial/resumed": 1})

    def test_a_clean_stop_answers_what_it_took(self):
        p1 = self.primary().start()
        with StreamWriter(p1) as writer:
            writer.wait_acked(500)
            p1.stop()
            p1.start()
            writer.wait_acked(500)
            writer.stop()
        writer.check(self, p1)

    def test_a_primary_alone_after_kills(self):
        p1 = self.primary(options={"wal.segment_bytes": "1MiB"}).start()
        with StreamWriter(p1, value_bytes=2000) as writer:
            for _ in range(repetitions(3)):
                writer.wait_acked(1000)
                p1.kill9()
                p1.start()
            writer.stop()
        writer.check(self, p1)
        self.assertEqual(p1.digest().keys, len(list(p1.client.scan())))


if __name__ == "__main__":
    harness.main()
