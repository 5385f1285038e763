#!/usr/bin/python3
"""Every state of a slot and every cause for which it is invalidated, in `towctl status` and in the metrics."""

import harness
import pull_client
import state_files
from pull_client import SnapshotStream, consumer_start, replica_start
from resync_checks import MIB, OPTIONS, PlannerTest, decisions
from towline.v1 import slot_service_pb2
from workload import fill


class SlotStatesTest(PlannerTest):
    """What ends the hold of a slot, and the ways back."""

    LIMITS = {"slots.max_retained_bytes": "4MiB", "wal.keep_bytes": "1MiB"}
    NO_LIMITS = {"slots.max_retained_bytes": "16GiB", "slots.consumer_idle": "0", "slots.replica_idle": "0",
                 "disk.guard_ratio": "0", "wal.keep_bytes": "1MiB"}

    def restart(self, node, options):
        node.stop()
        node.options.update({**self.NO_LIMITS, **options})
        return node.start()

    def create(self, node, lsn):
        """An inactive slot of either kind."""
        for name, kind in (("r1", pull_client.REPLICA), ("c1", pull_client.CONSUMER)):
            node.client.slots.CreateSlot(
                slot_service_pb2.CreateSlotRequest(name=name, kind=kind, confirmed_lsn=lsn))
            self.assert_slot(node, name, "inactive")

    def invalidations(self, node):
        return {name: value for name, value in node.metrics().items()
                if name.startswith("towline_slot_invalidations_total")}

    def assert_invalidated(self, node, cause, lsn):
        """Both slots are, counted and logged once each, and keep nothing."""
        for name in ("r1", "c1"):
            slot = self.assert_slot(node, name, "invalidated", cause)
            self.assertEqual((slot["health"], slot["retained_bytes"], slot["confirmed_lsn"]), ("lost", 0, lsn))
            self.assertEqual(slot["invalidation"]["needed_lsn"], lsn + 1)
            lines = [line for line in node.log().splitlines()
                     if f" slot_invalidated node={node.node_id} slot={name} " in line]
            self.assertIn(f" cause={cause} ", lines[-1])
        self.assertEqual(self.invalidations(node), {f'towline_slot_invalidations_total{{cause="{cause}"}}': 2})

    def assert_ways_back(self, node, cause, lsn):
        """Below the log the slot's own cause is the reason; within it the slot revives."""
        self.wait_pruned(node)
        first = node.status()["wal"]["first_lsn"]
        self.ask(node, "10", "refuse", cause, self.at(lsn, "c1", consumer_start, chain=0), [lsn + 1, first])
        self.assert_slot(node, "c1", "invalidated", cause)
        self.ask(node, "10", "full", cause, self.at(lsn, "r1", chain=1), [lsn + 1, first])
        end = node.status()["wal"]["durable_lsn"]
        self.ask(node, "11", "partial", "revived", self.at(end - 5, "c1", consumer_start), [end - 4, first])
        for name in ("r1", "c1"):
            slot = self.assert_slot(node, name, "inactive")
            self.assertEqual((slot["health"], slot["invalidation"]), ("reserved", None))
        self.assertEqual(sum(self.invalidations(node).values()), 2, "each once")
        self.drop_slots(node)

    def test_causes(self):
        p1 = self.primary(options={**OPTIONS, **self.NO_LIMITS, **self.LIMITS}).start()
        lsn = fill(p1, 500)
        self.learn(p1)
        self.chain(1)

        self.create(p1, lsn)
        fill(p1, 8000, prefix="a/")
        self.assert_invalidated(p1, "retained_bytes", lsn)
        self.assert_ways_back(p1, "retained_bytes", lsn)

        self.restart(p1, {})
        lsn = p1.status()["wal"]["durable_lsn"]
        self.create(p1, lsn)
        fill(p1, 4000, prefix="b/")
        self.restart(p1, {"disk.guard_ratio": "0.0001"})
        self.assert_invalidated(p1, "disk_pressure", lsn)
        self.assert_ways_back(p1, "disk_pressure", lsn)

        self.restart(p1, {})
        lsn = p1.status()["wal"]["durable_lsn"]
        self.create(p1, lsn)
        fill(p1, 4000, prefix="c/")
        self.restart(p1, {"slots.consumer_idle": "100ms", "slots.replica_idle": "100ms"})
        self.assert_invalidated(p1, "idle_timeout", lsn)
        self.restart(p1, {})
        self.assert_slot(p1, "r1", "invalidated", "idle_timeout")
        fill(p1, 4000, prefix="d/")

        # Slots of an older copy claim log that was removed since.
        self.drop_slots(p1)
        lsn = p1.status()["wal"]["durable_lsn"]
        self.create(p1, lsn)
        p1.stop()
        saved = state_files.slot_entries(p1.data_dir)
        p1.start()
        self.drop_slots(p1)
        fill(p1, 4000, prefix="e/")
        p1.wait(lambda status: status["wal"]["first_lsn"] > lsn + 1, "what they need is removed")
        p1.stop()
        state_files.restore_slots(p1.data_dir, saved)
        p1.start()
        self.assert_invalidated(p1, "wal_removed", lsn)
        self.assert_ways_back(p1, "wal_removed", lsn)

    def test_states_of_a_replica_that_loads(self):
        p1 = self.primary(options={**OPTIONS, **self.NO_LIMITS}).start()
        fill(p1, 20_000)
        self.learn(p1)
        start = replica_start("r1")
        snapshot = SnapshotStream(p1, start)
        slot = self.assert_slot(p1, "r1", "bootstrapping")
        self.assertEqual([replica["state"] for replica in p1.status()["replicas"]], ["bootstrapping"])
        # It holds the log behind the snapshot for as long as the replica takes.
        position = snapshot.header.position
        fill(p1, 6000, prefix="more/")
        self.assertGreater(self.slot(p1, "r1")["retained_bytes"], 4 * MIB)
        # Half a snapshot and a restart of either end are no resync.
        snapshot.cancel()
        self.assertEqual(self.assert_slot(p1, "r1", "bootstrapping")["generation"], slot["generation"])
        p1.kill9()
        p1.start()
        self.assertEqual(self.assert_slot(p1, "r1", "bootstrapping")["generation"], slot["generation"])
        self.assertLessEqual(p1.status()["wal"]["first_lsn"], position.lsn + 1)
        self.assertEqual(decisions(p1)["resync"], {})
        self.ask(p1, "6", "full", "new_replica", start)
        self.assertNotEqual(self.slot(p1, "r1")["generation"], slot["generation"])


if __name__ == "__main__":
    harness.main()
