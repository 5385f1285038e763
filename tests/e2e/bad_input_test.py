#!/usr/bin/python3
"""Requests that cannot be served, and clients that go away."""

import threading

import grpc
import harness
import towline_client
from harness import NodeTest, wait_until
from towline.v1 import change_pb2, kv_service_pb2, slot_service_pb2
from towline.v1 import replication_service_pb2 as replication_pb2
from workload import StreamWriter, fill


class BadInputTest(NodeTest):
    def setUp(self):
        self.p1 = self.primary().start()
        self.client = self.p1.client

    def tearDown(self):
        if self.p1.running:  # whatever was sent, the node serves on
            self.client.write(towline_client.put(b"still", b"here"))
            self.assertEqual(self.client.get(b"still"), b"here")
            self.p1.stop()

    def refused(self, code, *operations, conditions=()):
        request = kv_service_pb2.WriteRequest(operations=operations, conditions=conditions)
        with self.assertRaises(grpc.RpcError) as error:
            self.client.kv.Write(request, timeout=10)
        detail = towline_client.error_of(error.exception)
        self.assertEqual(error.exception.code(), code, error.exception)
        self.assertIsNotNone(detail, "every refusal has a reason")
        self.assertRegex(detail.reason, "^[a-z_]+$")
        return detail

    def test_sizes(self):
        put = towline_client.put
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        before = self.p1.status()["wal"]["durable_lsn"]
        self.refused(invalid, put(b"", b"x"))
        self.refused(invalid, put(b"k" * 65537, b"x"))
        self.refused(invalid, put(b"k", b"v" * (8 << 20)))
        self.refused(invalid, put(b"a", b"1"), put(b"", b"2"))  # all or nothing
        self.refused(invalid, towline_client.delete(b""))
        self.refused(invalid, towline_client.message(b"", b"x"))
        self.refused(invalid)
        self.refused(invalid, change_pb2.Operation())
        self.refused(invalid, change_pb2.Operation(put=change_pb2.Put(key=b"k", ttl_ms=5, expire_at_ms=5)))
        self.refused(invalid, put(b"k", b"v"), conditions=[kv_service_pb2.Condition(key=b"")])
        self.assertEqual(self.p1.status()["wal"]["durable_lsn"], before, "a refused write takes no LSN")
        self.assertIsNone(self.client.get(b"a"))
        # The largest that is allowed.
        self.client.write(put(b"k" * 65536, b"v"))
        self.client.write(put(b"big", b"v" * ((8 << 20) - 1024)))
        self.assertEqual(len(self.client.get(b"big")), (8 << 20) - 1024)
        self.assertEqual(self.p1.status()["wal"]["durable_lsn"], before + 2)

    def test_the_largest_record_reaches_replicas_and_consumers(self):
        self.client.write(towline_client.put(b"big", b"v" * ((8 << 20) - 1024)))
        r1 = self.replica("r1", self.p1).start()
        follower = r1.client.follow("big-reader", after_lsn=0)
        found = next(record for record in follower if record.change.WhichOneof("kind") == "batch")
        follower.close()
        self.assertEqual(len(found.change.batch.operations[0].put.value), (8 << 20) - 1024)
        self.assert_same_data(self.p1, r1)

    def test_towctl_says_what_is_wrong(self):
        for arguments, code, text in [
                (["put", "", "x"], 2, "key"), (["put", "k" * 65537, "x"], 2, "65536"),
                (["put", "k"], 2, "value"), (["frobnicate"], 2, "subcommand"),
                (["get", "missing"], 1, "missing"), (["slot", "get", "missing"], 1, "slot_not_found"),
                (["slot", "create", "Bad Name"], 2, ""), (["put", "k", "v", "--ttl", "10"], 2, "ttl"),
                (["get"], 2, "key")]:
            result = self.p1.towctl(*arguments, check=False)
            self.assertEqual(result.returncode, code, f"{arguments}: {result.stderr}")
            self.assertIn(text, result.stderr, arguments)
        result = harness.towctl("--timeout", "1s", "--endpoint", "127.0.0.1:1", "get", "k", check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("127.0.0.1:1", result.stderr)

    def test_write_stream_refuses_elements_one_by_one(self):
        put = towline_client.put
        elements = [kv_service_pb2.WriteRequest(operations=[put(b"s1", b"1")]),
                    kv_service_pb2.WriteRequest(operations=[put(b"", b"2")]),
                    kv_service_pb2.WriteRequest(operations=[put(b"s3", b"3")])]
        request = kv_service_pb2.WriteStreamRequest(first_sequence=1, elements=elements)
        answers = list(self.client.kv.WriteStream(iter([request]), timeout=10))
        self.assertEqual(answers[-1].acked_sequence, 3)
        refused = [element for answer in answers for element in answer.refused]
        self.assertEqual([element.sequence for element in refused], [2])
        self.assertTrue(refused[0].error.reason)
        self.assertEqual((self.client.get(b"s1"), self.client.get(b"s3")), (b"1", b"3"))
        for sequence in (0, 2):
            bad = kv_service_pb2.WriteStreamRequest(first_sequence=sequence, elements=elements[:1])
            with self.assertRaises(grpc.RpcError) as error:
                list(self.client.kv.WriteStream(iter([bad]), timeout=10))
            self.assertEqual(error.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_pull_refuses_nonsense(self):
        def first_answer(**fields):
            start = replication_pb2.PullStart(**{
                "protocol_version": 1, "slot": "s", "kind": slot_service_pb2.SLOT_KIND_CONSUMER, "credit_bytes": 1000,
                "format": replication_pb2.RECORD_FORMAT_RECORDS, "process_instance": 7, **fields})
            try:
                return next(self.client.replication.Pull(iter([replication_pb2.PullRequest(start=start)]), timeout=10))
            except grpc.RpcError as error:
                return error

        cluster_id = self.p1.status()["cluster_id"]
        for fields in ({"protocol_version": 99}, {"slot": "Not A Name"}, {"slot": ""}, {"lsn": 1}, {"credit_bytes": 0},
                       {"cluster_id": "0" * 24}, {"kind": slot_service_pb2.SLOT_KIND_UNSPECIFIED},
                       {"format": replication_pb2.RECORD_FORMAT_FRAMES}, {"cluster_id": cluster_id, "lsn": 10**15},
                       {"cluster_id": cluster_id, "lsn": 1, "chain": 12345}, {"from_slot": True, "lsn": 1}):
            answer = first_answer(**fields)
            if isinstance(answer, grpc.RpcError):
                self.assertIn(answer.code(), (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION,
                                              grpc.StatusCode.OUT_OF_RANGE), fields)
            else:
                self.assertIn(answer.started.decision, (replication_pb2.RESUME_DECISION_REFUSE,
                                                        replication_pb2.RESUME_DECISION_RETRY_AFTER), fields)
                self.assertTrue(answer.started.reason, fields)
        ack_first = replication_pb2.PullRequest(ack=replication_pb2.PullAck(received_lsn=1))
        with self.assertRaises(grpc.RpcError) as error:
            next(self.client.replication.Pull(iter([ack_first]), timeout=10))
        self.assertIn(error.exception.code(), (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION))
        self.assertEqual([slot for slot in self.p1.status()["slots"] if slot["state"] == "active"], [])

    def test_clients_that_go_away(self):
        for run in range(harness.repetitions(5, 30)):
            with StreamWriter(self.p1, prefix=f"w{run}/") as writer:
                writer.wait_acked(50)
                channels = [grpc.insecure_channel(self.p1.endpoint) for _ in range(4)]
                for channel in channels:  # in the middle of a stream, without a word
                    stub = harness.towline_client.kv_service_pb2_grpc.KvServiceStub(channel)
                    stop = threading.Event()

                    def requests(stop=stop):
                        yield kv_service_pb2.WriteStreamRequest(first_sequence=1, elements=[
                            kv_service_pb2.WriteRequest(operations=[towline_client.put(b"away", b"x")])] * 100)
                        stop.wait(30)

                    call = stub.WriteStream(requests())
                    next(call)
                    call.cancel()
                    stop.set()
                    channel.close()
                writer.wait_acked(50)
                writer.stop()
            writer.check(self, self.p1)

    def test_a_consumer_that_goes_away_frees_its_slot(self):
        fill(self.p1, 2000)
        for _ in range(harness.repetitions(3, 20)):
            follower = self.client.follow("flaky", after_lsn=0)
            next(iter(follower))
            follower.close()
            self.p1.wait_slot("flaky", lambda slot: slot["state"] == "inactive", "free again")
        lsns = []
        follower = self.client.follow("flaky", after_lsn=0)
        for record in follower:
            lsns.append(record.lsn)
            if record.lsn == self.p1.status()["wal"]["durable_lsn"]:
                break
        self.assertEqual(lsns, list(range(1, len(lsns) + 1)))

    def test_a_slot_serves_one_owner(self):
        fill(self.p1, 10)
        first = self.client.follow("shared", after_lsn=0)
        with self.assertRaises(towline_client.TowlineError) as refused:
            self.client.follow("shared")
        self.assertEqual(refused.exception.reason, "slot_in_use")
        first.close()
        self.p1.wait_slot("shared", lambda slot: slot["state"] == "inactive", "free again")
        second = wait_until(lambda: self.client.follow("shared", after_lsn=0), "the slot can be taken")
        second.close()


if __name__ == "__main__":
    harness.main()
