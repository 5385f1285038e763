#!/usr/bin/python3
"""Members join by attaching and leave by an operator's word."""

import harness
from harness import NodeTest, wait_until
from workload import fill

REFUSED = 4


def names(node):
    return [member["node_id"] for member in node.towctl_json("member", "list")]


class MembersTest(NodeTest):
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
