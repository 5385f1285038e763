#!/usr/bin/python3
"""A primary whose directory was lost and that starts again as an empty one: its replicas keep what they have."""

import harness
from harness import NodeTest
from workload import fill


class EmptyPrimaryTest(NodeTest):
    def identity(self, node):
        """What would be another after a bootstrap."""
        status = node.status()
        return status["cluster_id"], status["history"], sorted(path.name for path in (node.data_dir / "gen").iterdir())

    def start_before(self, node, *replicas):
        """They stand still meanwhile: who asks while a node starts is told to come again, and that counts."""
        for replica in replicas:
            replica.pause()
        node.start()
        for replica in replicas:
            replica.resume()

    def assert_refuses(self, node, lsn):
        status = node.wait(lambda status: status["state"] == "halted", "halted")
        self.assertEqual(status["state_reason"], "cluster_mismatch")
        self.assertEqual(status["upstream"]["state"], "refused")
        self.assertIn(self.empty.status()["cluster_id"], status["upstream"]["message"])
        self.assertEqual(status["wal"]["durable_lsn"], lsn)
        self.assertEqual((status["exact"], status["store"]["applied_lsn"]), (True, lsn))
        self.assertEqual(node.metrics()['towline_state{state="halted"}'], 1)
        self.assertEqual(node.towctl("status", "--check", check=False).returncode, 3)

    def assert_serves(self, node):
        self.assertEqual(len(list(node.client.scan(b"fill/"))), 2000)
        self.assertEqual(node.http("/readyz")[0], 200)
        self.assertEqual((node.digest().digest, node.digest().position), (self.digest.digest, self.digest.position))

    def test_replicas_refuse_it_and_go_on_with_the_right_one(self):
        p1, r1, r2 = self.cluster(replicas=2)
        fill(p1, 2000)
        self.digest = self.assert_same_data(p1, r1, r2)
        lsn = self.digest.position.lsn
        before = {node: self.identity(node) for node in (r1, r2)}
        p1.stop()

        # The same id and the same ports.
        self.empty = self.primary(data_dir=self.directory / "another-disk")
        self.empty.grpc_port, self.empty.http_port = p1.grpc_port, p1.http_port
        self.start_before(self.empty, r1, r2)
        self.assertNotEqual(self.empty.status()["cluster_id"], before[r1][0])
        self.assert_refuses(r1, lsn)
        self.assert_refuses(r2, lsn)
        for node in (r1, r2):
            self.assert_serves(node)
        # Records of the other cluster make no difference, nor does a restart.
        other = fill(self.empty, 5000, prefix="other/")
        r1.kill9()
        r1.launch()
        self.assert_refuses(r1, lsn)
        self.assert_serves(r1)
        status = self.empty.status()
        self.assertEqual((status["slots"], status["members"]), ([], []), "nobody has joined it")
        # The restarted one asks as another process, but its answer is the same: each refusal counts once.
        self.assertEqual(status["resync"]["by_reason"], {"refuse/cluster_mismatch": 2})
        self.assertEqual(status["resync"]["refused_total"], 2)
        self.assertEqual(self.empty.metrics()[
            'towline_resync_decisions_total{decision="refuse",reason="cluster_mismatch"}'], 2)
        # A new node joins the new cluster; those that have data stay apart.
        r3 = self.replica("r3", self.empty).start()
        self.wait_caught_up(self.empty, r3)
        self.assertGreaterEqual(r3.status()["wal"]["durable_lsn"], other)
        r3.stop()
        self.empty.stop()

        self.start_before(p1, r1, r2)
        for node in (r1, r2):
            node.wait_state("streaming", timeout=60)
            self.assertEqual(self.identity(node), before[node])
        fill(p1, 100, prefix="after/")
        self.assert_same_data(p1, r1, r2)
        resync = p1.status()["resync"]
        self.assertEqual(resync["by_reason"], {"partial/resumed": 2})
        self.assertEqual((resync["partial_total"], resync["full_total"]), (2, 0))


if __name__ == "__main__":
    harness.main()
