#!/usr/bin/python3
"""kill -9 of replicas while writes go on: each comes back from the log."""

import shutil

import harness
from harness import NodeTest, repetitions
from workload import StreamWriter, fill


class KillReplicaTest(NodeTest):
    def test_each_return_is_a_partial_resync(self):
        p1, r1, r2 = self.cluster(replicas=2)
        victims = [r1, r2]
        runs = repetitions(5)
        with StreamWriter(p1, pace_seconds=0.001) as writer:
            for run in range(runs):
                victim = victims[run % 2]
                before = p1.status()["resync"]["partial_total"]
                writer.wait_acked(100)
                victim.kill9()
                writer.wait_acked(self.random.randrange(1, 2000))
                p1.wait_slot(victim.node_id, lambda slot: slot["state"] == "inactive", "the old session is over")
                victim.start()
                p1.wait(lambda status: status["resync"]["partial_total"] == before + 1, "the partial resync is counted")
            writer.stop()
        self.assert_same_data(p1, r1, r2)
        writer.check(self, r1, r2)
        resync = p1.status()["resync"]
        self.assertEqual(resync["full_total"], 0, resync)
        self.assertEqual(resync["by_reason"], {"partial/new_replica": 2, "partial/resumed": runs})

    def test_a_wiped_replica_gets_everything_again(self):
        p1, r1, r2 = self.cluster(replicas=2)
        fill(p1, 3000)
        self.assert_same_data(p1, r1, r2)
        generation = self.slot(p1, "r1")["generation"]
        r1.kill9()
        shutil.rmtree(r1.data_dir)
        fill(p1, 1000, prefix="meanwhile/")
        r1.start()
        self.assert_same_data(p1, r1, r2)
        slot = self.slot(p1, "r1")
        self.assertNotEqual(slot["generation"], generation, "a wiped node is a new life of its slot")
        self.assertIsNone(slot["invalidation"])
        members = {member["node_id"]: member["incarnation"] for member in p1.status()["members"]}
        self.assertEqual(set(members), {"p1", "r1", "r2"})

    def test_pause_is_no_resync(self):
        p1, r1 = self.cluster(replicas=1)
        with StreamWriter(p1, pace_seconds=0.001) as writer:
            for _ in range(repetitions(2, 5)):
                r1.pause()
                writer.wait_acked(1000)
                r1.resume()
                self.wait_caught_up(p1, r1)
            writer.stop()
        self.assert_same_data(p1, r1)
        self.assertEqual(p1.status()["resync"]["by_reason"], {"partial/new_replica": 1})


if __name__ == "__main__":
    harness.main()
