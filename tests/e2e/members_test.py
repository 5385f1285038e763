#!/usr/bin/python3
"""Members join by attaching and leave by an operator's word."""

import harness
from harness import NodeTest, wait_until
from workload import fill

REFUSED = 4


def names(node):
    return [member["node_id"] for member in node.towctl_json("member", "list")]


# A replica that is away falls behind the log soon.
SMALL_LOG = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "wal.spare_segments": "1", "store.flush_bytes": "1MiB",
             "store.flush_interval": "100ms", "slots.max_retained_bytes": "4MiB", "slots.persist_interval": "100ms"}


class MembersTest(NodeTest):
    def test_who_loads_a_snapshot_learns_the_members_anew(self):
        p1, r1, r2 = self.cluster(2, primary_options=SMALL_LOG, replica_options=SMALL_LOG)
        wait_until(lambda: names(r2) == ["p1", "r1", "r2"], "everybody is a member")
        r2.kill9()
        self.replica("r3", p1, options=SMALL_LOG).start()
        wait_until(lambda: names(p1) == ["p1", "r1", "r2", "r3"], "r3 joins")
        fill(p1, 12_000, value_bytes=1000)
        needed = p1.wait_slot("r2", lambda slot: slot["state"] == "invalidated", "invalidated")["invalidation"]
        p1.wait(lambda status: status["wal"]["first_lsn"] > needed["needed_lsn"], "what it needed is gone")
        r2.start(timeout=60)
        self.assertGreater(p1.status()["resync"]["full_total"], 0)
        # The record of r3's joining is in no log that r2 has read: with the old list r2 could be promoted by too few.
        wait_until(lambda: names(r2) == ["p1", "r1", "r2", "r3"], "r2 knows all members", describe=lambda: names(r2))

    def test_join_and_leave(self):
        p1, r1, r2 = self.cluster(2)
        wait_until(lambda: names(p1) == ["p1", "r1", "r2"], "everybody is a member")
        wait_until(lambda: names(r1) == ["p1", "r1", "r2"], "replicas know that from the log")

        connected = p1.towctl("member", "remove", "r2", check=False)
        self.assertEqual(connected.returncode, REFUSED)
        self.assertIn("member_connected", connected.stderr)
        self.assertEqual(names(p1), ["p1", "r1", "r2"])
        self.assertIn("member_self", p1.towctl("member", "remove", "p1", check=False).stderr)
        self.assertIn("member_not_found", p1.towctl("member", "remove", "r9", check=False).stderr)
        self.assertEqual(r1.towctl("member", "remove", "r2", check=False).returncode, 5)
        self.assertEqual(p1.towctl("member", "remove", "NO", check=False).returncode, 2)

        r2.stop()
        p1.wait(lambda status: any(r["node_id"] == "r2" and r["state"] == "disconnected" for r in status["replicas"]),
                "r2 is gone")
        removed = p1.towctl("member", "remove", "r2")
        self.assertIn("towctl slot drop r2", removed.stdout)
        self.assertEqual(names(p1), ["p1", "r1"])
        wait_until(lambda: names(r1) == ["p1", "r1"], "the replica knows it from the log")
        p1.kill9()
        p1.start()
        self.assertEqual(names(p1), ["p1", "r1"])
        # It is welcome again.
        r2.start()
        wait_until(lambda: names(p1) == ["p1", "r1", "r2"], "back")

    def test_nobody_joins_by_itself(self):
        p1 = self.primary(options={"members.auto_join": "false"}).start()
        r1 = self.replica("r1", p1).start()
        fill(p1, 10)
        self.assert_same_data(p1, r1)
        self.assertEqual(names(p1), [])


if __name__ == "__main__":
    harness.main()
