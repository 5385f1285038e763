#!/usr/bin/python3
"""Reads with min_position see what they ask for, or are told why they cannot."""

import threading

import grpc
import harness
import towline_client  # the stubs are on the path once harness is imported
from bootstrap_checks import SMALL_LOG, BootstrapTest
from harness import SLOW
from towline.v1 import admin_service_pb2, change_pb2, kv_service_pb2, types_pb2
from workload import fill

TIMEOUT = 40 * SLOW


class BookmarksTest(BootstrapTest):
    def write(self, node, key):
        operation = change_pb2.Operation()
        operation.CopyFrom(towline_client.put(key, b"1"))
        return node.client.kv.Write(kv_service_pb2.WriteRequest(operations=[operation]), timeout=TIMEOUT).position

    def read(self, node, key, position, wait_ms=0):
        request = kv_service_pb2.GetRequest(key=key, min_position=position, wait_ms=wait_ms)
        response = node.client.kv.Get(request, timeout=TIMEOUT)
        return response.entry.value if response.HasField("entry") else None

    def assert_refused(self, reason, call, *arguments, **options):
        with self.assertRaises(grpc.RpcError) as refused:
            call(*arguments, **options)
        error = towline_client.error_of(refused.exception)
        self.assertEqual(error.reason, reason, error)
        return error

    def test_a_replica_waits_for_what_was_written(self):
        p1, r1 = self.cluster(replicas=1)
        for i in range(50):
            key = b"key-%d" % i
            position = self.write(p1, key)
            self.assertEqual(self.read(r1, key, position, wait_ms=20_000), b"1")
        batch = r1.client.kv.BatchGet(
            kv_service_pb2.BatchGetRequest(keys=[b"key-1", b"none"], min_position=position), timeout=TIMEOUT)
        self.assertEqual([entry.key for entry in batch.entries], [b"key-1"])
        self.assertGreaterEqual(batch.position.lsn, position.lsn)
        page = r1.client.kv.Scan(kv_service_pb2.ScanRequest(prefix=b"key-", min_position=position), timeout=TIMEOUT)
        self.assertEqual(len(page.entries), 50)

        # A reader that comes before the record: it waits, and sees it.
        ahead = types_pb2.Position(cluster_id=position.cluster_id, term=position.term, term_id=position.term_id,
                                   lsn=position.lsn + 1)
        found = []
        reader = threading.Thread(target=lambda: found.append(self.read(r1, b"late", ahead, wait_ms=20_000)))
        reader.start()
        self.write(p1, b"late")
        reader.join(TIMEOUT)
        self.assertEqual(found, [b"1"])

    def test_a_primary_shows_what_it_has_answered(self):
        """A write is answered when it is durable; who reads waits until it is applied, and is not shown less."""
        p1 = self.primary().start()
        before = self.write(p1, b"before")
        p1.stop()
        p1.environment["TOWLINE_FAILPOINTS"] = "applier_pause"
        p1.start()
        self.assertGreater(self.write(p1, b"after").lsn, before.lsn)
        kv = p1.client.kv
        for call in [lambda: kv.Get(kv_service_pb2.GetRequest(key=b"before"), timeout=TIMEOUT),
                     lambda: kv.BatchGet(kv_service_pb2.BatchGetRequest(keys=[b"before"]), timeout=TIMEOUT),
                     lambda: kv.Scan(kv_service_pb2.ScanRequest(), timeout=TIMEOUT),
                     lambda: p1.admin.GetDigest(admin_service_pb2.GetDigestRequest(), timeout=TIMEOUT)]:
            error = self.assert_refused("behind", call)
            self.assertIn("answered to LSN", error.message)
        p1.kill9()
        p1.environment.clear()
        p1.start()
        response = p1.client.kv.Get(kv_service_pb2.GetRequest(key=b"after"), timeout=TIMEOUT)
        self.assertEqual(response.entry.value, b"1")

    def test_why_not(self):
        p1, r1 = self.cluster(replicas=1)
        position = self.write(p1, b"k")
        ahead = types_pb2.Position(cluster_id=position.cluster_id, term=position.term, term_id=position.term_id,
                                   lsn=position.lsn + 1000)
        error = self.assert_refused("behind", self.read, r1, b"k", ahead, wait_ms=1)
        self.assertIn(f"LSN {position.lsn + 1000}", error.message)
        self.assertIn(p1.endpoint, error.next_action)
        discarded = types_pb2.Position(cluster_id=position.cluster_id, term=position.term,
                                       term_id=position.term_id ^ 1, lsn=position.lsn)
        self.assert_refused("position_discarded", self.read, p1, b"k", discarded)
        foreign = types_pb2.Position(cluster_id="0" * 24, term=1, term_id=1, lsn=1)
        self.assert_refused("cluster_mismatch", self.read, p1, b"k", foreign)
        self.assert_refused("invalid_position", self.read, p1, b"k", types_pb2.Position())
        self.assert_refused("invalid_position", self.read, p1, b"k", position, wait_ms=30_001)

    def test_a_replica_that_loads_a_snapshot_sends_readers_elsewhere(self):
        p1 = self.primary(options={**SMALL_LOG, "bootstrap.rate_limit": "2MiB"}).start()
        r1 = self.replica("r1", p1, options=SMALL_LOG).start()
        fill(p1, 10_000)
        self.wait_caught_up(p1, r1)
        old = self.write(p1, b"old")
        r1.wait_applied(old.lsn)
        self.request(r1)
        r1.wait(lambda status: (status["bootstrap"] or {}).get("phase") == "loading", "the load has begun")
        new = self.write(p1, b"new")
        self.assertEqual(self.read(r1, b"old", old), b"1")  # the old state covers it
        error = self.assert_refused("rebootstrapping", self.read, r1, b"new", new, wait_ms=30_000)
        self.assertIn(p1.endpoint, error.next_action)
        self.assertIn("loading", error.message)
        r1.wait(lambda status: status["state"] == "streaming" and status["bootstrap"] is None, "it streams", 60)
        self.assertEqual(self.read(r1, b"new", new, wait_ms=20_000), b"1")


if __name__ == "__main__":
    harness.main()
