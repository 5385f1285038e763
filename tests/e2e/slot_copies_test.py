#!/usr/bin/python3
"""Copies of slots on replicas: the log that owners need is kept on every node, not only where they connect."""

import harness
from harness import NodeTest, repetitions
from pull_client import PullStream, consumer_start
from workload import fill

SMALL_LOG = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "store.flush_bytes": "2MiB",
             "store.flush_interval": "1s", "slots.persist_interval": "50ms"}


class SlotCopiesTest(NodeTest):
    def setUp(self):
        self.p1, self.r1, self.r2 = self.cluster(primary_options=SMALL_LOG, replica_options=SMALL_LOG)

    def consumer(self, name, lsn=None):
        """A consumer's slot on the primary behind `lsn`, or the newest record, of which all who run have a copy: what they
        remove of their logs before they hear of it is gone."""
        arguments = [] if lsn is None else ["--confirmed-lsn", lsn]
        slot = self.p1.towctl_json("slot", "create", name, "--kind", "consumer", *arguments)
        for node in self.nodes:
            if node.running and node is not self.p1:
                self.wait_copy(node, name)
        return slot

    def wait_copy(self, node, name, **expected):
        return node.wait_slot(name, lambda slot: slot["origin"] == "p1" and expected.items() <= slot.items(),
                              f"copy with {expected}")

    def wait_pruned(self, node, beyond):
        return node.wait(lambda status: status["wal"]["first_lsn"] > beyond, f"first LSN above {beyond}", timeout=60)

    def write_much(self, prefix):
        """More than every node keeps without slots, and persisted everywhere."""
        lsn = fill(self.p1, 6_000, prefix=prefix)
        for node in self.nodes:
            if node.running:
                node.wait(lambda status: status["store"]["persisted_lsn"] >= lsn, "persisted")
        return lsn

    def test_a_replica_keeps_the_log_for_owners_elsewhere(self):
        begin = fill(self.p1, 10)
        slot = self.consumer("c1", begin)
        self.wait_caught_up(self.p1, self.r1, self.r2)
        self.r2.wait_slot("r1", lambda slot: slot["confirmed_lsn"] >= begin, "confirmed")
        self.r2.stop()  # a sibling that is away
        away = self.p1.wait_slot("r2", lambda slot: slot["state"] == "inactive", "inactive")["confirmed_lsn"]
        self.write_much("a/")
        copy = self.wait_copy(self.r1, "c1", confirmed_lsn=begin, state="inactive", health="reserved")
        self.assertEqual((copy["generation"], copy["kind"], copy["created_time_ms"]),
                         (slot["generation"], "consumer", slot["created_time_ms"]))
        self.wait_copy(self.r1, "r2", confirmed_lsn=away)
        self.assertIsNone(self.slot(self.r1, "r1"))
        self.assertLessEqual(self.r1.status()["wal"]["first_lsn"], begin + 1)

        # It keeps them whatever becomes of its process, and with nobody who tells it again.
        self.p1.pause()
        for _ in range(repetitions(2)):
            self.r1.kill9()
            self.r1.start("disconnected", "catching_up")
            self.wait_copy(self.r1, "c1", confirmed_lsn=begin)
            self.wait_copy(self.r1, "r2", confirmed_lsn=away)
        self.p1.resume()
        self.r1.wait_state("streaming")
        self.p1.wait_state("writable")  # after so long a pause it asks its members first
        end = self.write_much("b/")
        self.assertLessEqual(self.r1.status()["wal"]["first_lsn"], begin + 1)
        with PullStream(self.r1, consumer_start("probe", lsn=begin, temporary=True, credit_bytes=64 << 20,
                                                cluster_id=self.p1.status()["cluster_id"])) as stream:
            self.assertEqual((stream.decision, stream.started.from_lsn), ("partial", begin + 1))
            stream.receive(end)

        # Owners go on, and the log goes.
        self.r2.start()
        self.p1.towctl("slot", "advance", "c1", end)
        self.wait_copy(self.r1, "c1", confirmed_lsn=end)
        self.wait_pruned(self.r1, begin + 1)
        self.assert_same_data(self.p1, self.r1, self.r2)
        for node in self.nodes:
            self.assertEqual(node.status()["resync"]["full_total"], 0)

    def test_a_dropped_slot_is_dropped_everywhere(self):
        begin = fill(self.p1, 10)
        self.consumer("c1", begin)
        self.write_much("a/")
        self.consumer("c2")
        for node in (self.r1, self.r2):
            self.wait_copy(node, "c1")
            self.wait_copy(node, "c2")
        result = self.r1.towctl("slot", "drop", "c1", "--yes", check=False)
        self.assertEqual(result.returncode, 4, result.stderr)
        self.assertIn("slot_is_copy", result.stderr)
        self.assertIn("consumer/copy of p1", self.r1.towctl("slot", "list").stdout)
        self.r2.kill9()
        self.p1.towctl("slot", "drop", "c1", "--yes")
        self.r1.wait(lambda status: not any(slot["name"] == "c1" for slot in status["slots"]), "dropped")
        self.wait_pruned(self.r1, begin + 1)
        self.r2.start()
        self.r2.wait(lambda status: not any(slot["name"] == "c1" for slot in status["slots"]), "dropped, though away")
        self.wait_copy(self.r2, "c2")

    def test_metrics_and_peers_are_those_of_this_node(self):
        self.consumer("c1")
        self.wait_copy(self.r1, "c1")
        self.wait_copy(self.r1, "r2")
        status = self.r1.status()
        self.assertEqual((status["replicas"], status["consumers"]), ([], []))
        metrics = self.r1.metrics()
        self.assertEqual([name for name in metrics if name.startswith("towline_slot_state")], [])
        self.assertEqual(metrics['towline_slot_copy_held{slot="c1",origin="p1"}'], 1)
        self.assertEqual([name for name in self.p1.metrics() if name.startswith("towline_slot_copy")], [])

    def test_a_loaded_replica_says_what_it_cannot_serve(self):
        begin = fill(self.p1, 10)
        self.consumer("c1", begin)
        end = self.write_much("a/")
        self.p1.towctl("bootstrap", "r1")
        self.r1.wait(lambda status: status["wal"]["first_lsn"] > end, "a log behind a snapshot", timeout=60)
        self.r1.wait_state("streaming")
        lost = self.wait_copy(self.r1, "c1", state="invalidated", health="lost")
        self.assertEqual((lost["invalidation"]["cause"], lost["invalidation"]["needed_lsn"]), ("wal_removed", begin + 1))
        self.assertEqual(self.r1.metrics()['towline_slot_copy_held{slot="c1",origin="p1"}'], 0)
        self.wait_copy(self.r2, "c1", health="reserved")
        self.wait_copy(self.r1, "r2", health="reserved")
        # Its owner comes so far.
        lsn = fill(self.p1, 10, prefix="b/")
        self.wait_caught_up(self.p1, self.r1)
        self.p1.towctl("slot", "advance", "c1", lsn)
        self.wait_copy(self.r1, "c1", health="reserved", confirmed_lsn=lsn)

    def test_a_replica_of_a_replica_gets_copies_of_the_primarys_slots(self):
        r3 = self.replica("r3", self.r1, options=SMALL_LOG).start()
        begin = fill(self.p1, 10)
        self.consumer("c1", begin)
        self.wait_copy(r3, "c1", confirmed_lsn=begin)
        self.wait_copy(r3, "r1")
        self.wait_copy(r3, "r2")
        self.wait_copy(self.r1, "c1")
        self.assertEqual({slot["name"]: slot["origin"] for slot in self.r1.status()["slots"]},
                         {"c1": "p1", "r2": "p1", "r3": ""})
        self.write_much("a/")
        self.assertLessEqual(r3.status()["wal"]["first_lsn"], begin + 1)
        self.p1.towctl("slot", "drop", "c1", "--yes")
        self.wait_pruned(r3, begin + 1)
        # r3 comes and goes: its slot stays what r1 serves.
        r3.kill9()
        fill(self.p1, 10, prefix="b/")
        self.r1.wait_slot("r3", lambda slot: slot["state"] == "inactive" and slot["origin"] == "", "served by r1")
        r3.start()
        self.assert_same_data(self.p1, self.r1, self.r2, r3)

    def test_a_consumer_that_moves_to_a_replica_and_back(self):
        begin = fill(self.p1, 50)
        self.consumer("c1", begin - 20)
        self.wait_caught_up(self.p1, self.r1)
        self.wait_copy(self.r1, "c1", confirmed_lsn=begin - 20)
        with self.r1.client.follow("c1") as follower:
            record = next(iter(follower))
            self.assertEqual(record.lsn, begin - 19)
            follower.ack(record.lsn)
            self.r1.wait_slot("c1", lambda slot: slot["origin"] == "" and slot["confirmed_lsn"] == begin - 19, "served")
        with self.p1.client.follow("c1") as follower:  # it had confirmed less here
            records = iter(follower)
            self.assertEqual(next(records).lsn, begin - 19)
            follower.ack(begin - 19)
            self.wait_copy(self.r1, "c1", confirmed_lsn=begin - 19)


if __name__ == "__main__":
    harness.main()
