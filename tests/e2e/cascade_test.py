#!/usr/bin/python3
"""Replicas of replicas: the path to the primary, and loops."""

import harness
from harness import Node, NodeTest
from relay import Relay
from workload import fill


class CascadeTest(NodeTest):
    """The replicas stay with the upstream that they were given, so that a loop stays one."""

    PINNED = {"replication.follow_primary": "false"}

    def setUp(self):
        self.p1 = self.primary().start()

    def replica(self, node_id, upstream, **arguments):
        return super().replica(node_id, upstream, options=self.PINNED, **arguments)

    def path(self, node):
        return node.status()["upstream"]["path"]

    def follow_each_other(self, count):
        """Replicas of p1 that then follow each other in a ring: [r1, r2, ...], each halted for the loop."""
        ring = [self.replica(f"r{i + 1}", self.p1).launch() for i in range(count)]
        for node in ring:
            node.wait_state("streaming")
        fill(self.p1, 100)
        self.wait_caught_up(self.p1, *ring)
        for node in ring:
            node.stop()
        for node, upstream in zip(ring, ring[1:] + ring[:1]):
            node.upstream = upstream
            node.launch()
        for node in ring:
            node.wait(lambda status: status["state"] == "halted" and status["state_reason"] == "loop",
                      "halted for the loop", timeout=60)
        for node in ring:
            node.wait(lambda status: all(peer["state"] == "disconnected" for peer in status["replicas"]),
                      "serves nobody of the loop")
        return ring

    def assert_heals(self, ring):
        """ring[0] gets the right upstream; the others are not touched."""
        ring[0].stop()
        ring[0].upstream = self.p1
        ring[0].start()
        lsn = fill(self.p1, 50, prefix="healed/")
        for node in ring[:0:-1]:
            node.wait(lambda status: status["state"] == "streaming" and status["state_reason"] == ""
                      and status["store"]["applied_lsn"] >= lsn, "streams again", timeout=90)
        self.assert_same_data(self.p1, *ring)
        expected = ["p1"]
        for node in (ring[0], *ring[:0:-1]):
            self.assertEqual(self.path(node), expected)
            expected = [node.node_id, *expected]
        for node in (self.p1, *ring):
            self.assertEqual(node.status()["resync"]["full_total"], 0)

    def test_every_replica_knows_its_path(self):
        r1 = self.replica("r1", self.p1).start()
        r2 = self.replica("r2", r1).start()
        r3 = self.replica("r3", r2).start()
        fill(self.p1, 100)
        self.assert_same_data(self.p1, r1, r2, r3)
        self.assertEqual([self.path(node) for node in (r1, r2, r3)], [["p1"], ["r1", "p1"], ["r2", "r1", "p1"]])
        self.assertIn("path      r2, r1, p1", r3.towctl("status").stdout)
        # r1 moves behind a new node while r2 and r3 stay connected to theirs.
        r0 = self.replica("r0", self.p1).start()
        r1.stop()
        r1.upstream = r0
        r1.start()
        r3.wait(lambda status: status["upstream"]["path"] == ["r2", "r1", "r0", "p1"], "the new path")
        r3.wait_state("streaming")

    def test_two_replicas_that_follow_each_other(self):
        ring = self.follow_each_other(2)
        for node in ring:
            node.wait(lambda status: status["resync"]["by_reason"].get("refuse/loop") == 1, "one refusal is counted")
            self.assertIn(f'towline_state{{state="halted"}} 1', node.http("/metrics")[1])
        self.assert_heals(ring)

    def test_a_ring_of_three(self):
        self.assert_heals(self.follow_each_other(3))

    def test_a_ring_that_closes_last(self):
        """r1 <- r2 <- r3 stream, then r1 follows r3: sessions that were served before end."""
        r1 = self.replica("r1", self.p1).start()
        r2 = self.replica("r2", r1).start()
        r3 = self.replica("r3", r2).start()
        fill(self.p1, 100)
        self.wait_caught_up(self.p1, r1, r2, r3)
        r1.stop()
        r1.upstream = r3
        r1.launch()
        for node in (r1, r2, r3):
            node.wait(lambda status: status["state"] == "halted" and status["state_reason"] == "loop",
                      "halted for the loop", timeout=60)
        self.assert_heals([r1, r3, r2])

    def test_a_loop_heals_where_the_primary_may_be_followed(self):
        ring = [Node(self, f"r{i + 1}", "replica", self.p1).launch() for i in range(2)]
        for node in ring:
            node.wait_state("streaming")
        for node in ring:
            self.wait_members(node, 3)
        for node in ring:
            node.stop()
        for node, upstream in zip(ring, ring[::-1]):
            node.upstream = upstream
            node.launch()
        lsn = fill(self.p1, 50)
        for node in ring:
            node.wait(lambda status: status["state"] == "streaming" and status["store"]["applied_lsn"] >= lsn,
                      "streams from the primary, or from one that does", timeout=60)

    def test_a_replica_of_itself(self):
        r1 = self.replica("r1", self.p1).start()
        self.wait_caught_up(self.p1, r1)
        r1.stop()
        relay = Relay(r1.endpoint)  # its own address is refused at the start
        self.addCleanup(relay.close)
        r1.upstream = relay.endpoint
        r1.launch()
        r1.wait(lambda status: (status["state"], status["state_reason"]) == ("halted", "self"), "halted")
        r1.stop()
        r1.upstream = self.p1
        r1.start()


if __name__ == "__main__":
    harness.main()
