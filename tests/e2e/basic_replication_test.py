#!/usr/bin/python3
"""Writes on the primary reach the state and the change stream of every node."""

import time

import harness
import towline_client as towline
from harness import NodeTest, wait_until
from towline.v1 import kv_service_pb2
from workload import StreamWriter, fill


class BasicReplicationTest(NodeTest):
    def setUp(self):
        self.p1, self.r1, self.r2 = self.cluster(replicas=2)

    def test_state_is_the_same_on_all_nodes(self):
        self.p1.towctl("put", "greeting", "hello")
        self.p1.client.write(towline.put(b"a", b"1"), towline.put(b"b", b"2"), towline.delete(b"greeting"))
        self.p1.client.write(towline.put(bytes(range(256)), b"\x00\xff" * 1000))
        self.p1.client.write(towline.put(b"empty", b""))
        fill(self.p1, 5000, value_bytes=300)
        digest = self.assert_same_data(self.p1, self.r1, self.r2)
        self.assertEqual(digest.keys, 5004)
        for node in (self.p1, self.r1, self.r2):
            self.assertEqual(node.towctl("get", "a").stdout.rstrip("\n"), "1")
            self.assertEqual(node.client.get(bytes(range(256))), b"\x00\xff" * 1000)
            self.assertEqual(node.client.get(b"empty"), b"")
            self.assertIsNone(node.client.get(b"greeting"))
            self.assertEqual(node.towctl("get", "greeting", check=False).returncode, 1)
            keys = [entry.key for entry in node.client.scan(b"fill/", pinned=True)]
            self.assertEqual(len(keys), 5000)
            self.assertEqual(keys, sorted(keys))
            page = node.client.kv.BatchGet(kv_service_pb2.BatchGetRequest(keys=[b"b", b"none", b"a"]))
            self.assertEqual([entry.key for entry in page.entries], [b"b", b"a"])

    def test_digests_agree_at_one_lsn_while_writes_go_on(self):
        with StreamWriter(self.p1, pace_seconds=0.002) as writer:
            writer.wait_acked(500)
            for _ in range(3):
                at = self.p1.status()["wal"]["durable_lsn"] + 2000
                waiting = [node.admin.GetDigest.future(
                    harness.admin_service_pb2.GetDigestRequest(at_lsn=at, timeout_ms=30000), timeout=40)
                    for node in (self.p1, self.r1, self.r2)]
                answers = [call.result() for call in waiting]
                self.assertEqual({answer.position.lsn for answer in answers}, {at})
                self.assertEqual(len({(answer.digest, answer.keys) for answer in answers}), 1, answers)
        writer.check(self, self.p1)
        passed = self.p1.towctl("digest", "--at-lsn", "1", check=False)
        self.assertNotEqual(passed.returncode, 0)
        self.assertIn("position_passed", passed.stderr)

    def test_time_to_live_ends_on_all_nodes(self):
        self.p1.client.write(towline.put(b"short", b"x", ttl_ms=700))
        self.p1.client.write(towline.put(b"long", b"x", ttl_ms=3_600_000))
        before = time.time() * 1000
        for node in (self.p1, self.r1, self.r2):
            wait_until(lambda: node.client.get(b"long") == b"x", "the key with a long time to live")
            entry = node.client.kv.Get(kv_service_pb2.GetRequest(key=b"long")).entry
            self.assertGreater(entry.expire_at_ms, before + 3_500_000)
            wait_until(lambda: node.client.get(b"short") is None, f"expiry on {node.node_id}")
        # The primary logs a plain delete, so that the key leaves the state and the digest too.
        for node in (self.p1, self.r1, self.r2):
            wait_until(lambda: node.digest().keys == 1, f"the expired key leaves {node.node_id}")
        self.assert_same_data(self.p1, self.r1, self.r2)

    def test_delete_range(self):
        for i in range(100):
            self.p1.client.write(towline.put(b"range/%03d" % i, b"x"))
        self.p1.client.write(towline.delete_range(b"range/010", b"range/090"))
        self.p1.client.write(towline.put(b"range/050", b"back"))
        self.assert_same_data(self.p1, self.r1, self.r2)
        expected = [b"range/%03d" % i for i in (*range(10), 50, *range(90, 100))]
        for node in (self.p1, self.r1, self.r2):
            self.assertEqual([entry.key for entry in node.client.scan(b"range/")], expected)

    def test_messages_reach_the_change_stream_of_any_node(self):
        self.p1.client.write(towline.put(b"state", b"1"))
        lsn = self.p1.client.write(towline.message(b"orders", b"\x00paid"))
        self.r1.wait_applied(lsn)
        for node in (self.p1, self.r1):
            follower = node.client.follow(f"reader-{node.node_id}", after_lsn=lsn - 1)
            record = next(iter(follower))
            follower.close()
            self.assertEqual(record.lsn, lsn)
            self.assertEqual(record.change.batch.operations[0].message.payload, b"\x00paid")
        self.assert_same_data(self.p1, self.r1, self.r2)

    def test_conditions_and_retries(self):
        client = self.p1.client
        first = client.write(towline.put(b"once", b"1"), client_id="c1", sequence=1)
        self.assertEqual(client.write(towline.put(b"once", b"1"), client_id="c1", sequence=1), first)
        modified = kv_service_pb2.Condition(key=b"once", modified_lsn=first)
        second = client.write(towline.put(b"once", b"2"), conditions=[modified])
        with self.assertRaises(towline.TowlineError) as refused:
            client.write(towline.put(b"once", b"3"), conditions=[modified])
        self.assertEqual(refused.exception.reason, "condition_failed")
        with self.assertRaises(towline.TowlineError):
            client.write(towline.put(b"once", b"3"), conditions=[kv_service_pb2.Condition(key=b"once", exists=False)])
        self.assertEqual(client.get(b"once"), b"2")
        self.assertEqual(client.kv.Get(kv_service_pb2.GetRequest(key=b"once")).entry.modified_lsn, second)

    def test_a_replica_refuses_writes_and_names_the_primary(self):
        with self.assertRaises(towline.TowlineError) as refused:
            self.r1.client.write(towline.put(b"a", b"1"))
        self.assertEqual(refused.exception.reason, "not_primary")
        self.assertIn(self.p1.endpoint, str(refused.exception) + str(refused.exception.metadata))
        self.assertEqual(self.r1.towctl("put", "a", "1", check=False).returncode, 5)
        self.r1.towctl("--follow", "put", "a", "1")
        self.assertEqual(self.p1.client.get(b"a"), b"1")


class CascadeTest(NodeTest):
    def test_a_replica_feeds_a_replica(self):
        p1 = self.primary().start()
        r1 = self.replica("r1", p1).start()
        r2 = self.replica("r2", r1).start()
        fill(p1, 2000)
        self.assert_same_data(p1, r1, r2)
        self.assertEqual(r2.status()["upstream"]["endpoint"], r1.endpoint)
        self.assertIn("r2", [replica["node_id"] for replica in r1.status()["replicas"]])
        r1.kill9()
        fill(p1, 2000, prefix="more/")
        r1.start()
        r2.wait_state("streaming")
        self.assert_same_data(p1, r1, r2)


if __name__ == "__main__":
    harness.main()
