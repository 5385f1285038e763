#!/usr/bin/python3
"""A client that sends what no honest one does: every request is refused with its reason, and moves nothing.

A slot holds log that the node would remove at once if the slot's confirmed LSN moved. What is sent is written by hand,
message by message.
"""

import queue
import re

import grpc
import harness
import towline_client
from harness import NodeTest, wait_until
from towline.v1 import replication_service_pb2 as replication_pb2
from towline.v1 import replication_service_pb2_grpc as replication_pb2_grpc
from towline.v1 import slot_service_pb2, types_pb2
from workload import fill

OPTIONS = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "store.flush_bytes": "2MiB",
           "store.flush_interval": "1s", "slots.persist_interval": "50ms"}
CONSUMER = {"kind": slot_service_pb2.SLOT_KIND_CONSUMER, "format": replication_pb2.RECORD_FORMAT_RECORDS}
REPLICA = {"kind": slot_service_pb2.SLOT_KIND_REPLICA, "format": replication_pb2.RECORD_FORMAT_FRAMES}
MOST = 2**64 - 1


class RawPull:
    """One Pull stream. Requests go out as they are given."""

    def __init__(self, channel, **start):
        self._requests = queue.SimpleQueue()
        self._call = replication_pb2_grpc.ReplicationServiceStub(channel).Pull(
            iter(self._requests.get, None), timeout=30 * harness.SLOW)
        self.started = None
        if start:
            self.send(start=replication_pb2.PullStart(**start))

    def send(self, **request):
        self._requests.put(replication_pb2.PullRequest(**request))

    def begin(self):
        """Takes the decision, which must be PARTIAL, and the first record."""
        self.started = next(self._call).started
        assert self.started.decision == replication_pb2.RESUME_DECISION_PARTIAL, self.started
        for response in self._call:
            if response.WhichOneof("kind") in ("records", "frames"):
                return self
        raise AssertionError("no record came")

    def ack(self, lsn, **changed):
        fields = {"session_id": self.started.session_id, "slot_generation": self.started.slot_generation,
                  "term": self.started.term, "received_lsn": lsn, "flushed_lsn": lsn, "applied_lsn": lsn, **changed}
        self.send(ack=replication_pb2.PullAck(**fields))

    def reason(self):
        """Why the server ends the stream, in whichever way it says so. AssertionError if it does not end it."""
        try:
            for response in self._call:
                kind = response.WhichOneof("kind")
                if kind == "ended":
                    return response.ended.reason
                if kind == "started" and response.started.decision != replication_pb2.RESUME_DECISION_PARTIAL:
                    return response.started.reason
        except grpc.RpcError as error:
            detail = towline_client.error_of(error)
            if detail is None:
                raise AssertionError(f"the stream ended without a reason: {error}") from error
            return detail.reason
        raise AssertionError("the stream ended in order")

    def close(self):
        self._requests.put(None)
        self._call.cancel()


class HostileClientTest(NodeTest):
    def setUp(self):
        self.p1 = self.primary(options=OPTIONS).start()
        self.channel = grpc.insecure_channel(self.p1.endpoint, options=towline_client.CHANNEL_OPTIONS)
        self.addCleanup(self.channel.close)
        self.begin = fill(self.p1, 10)
        for name, kind in (("victim", "consumer"), ("victim-r", "replica")):
            self.p1.towctl("slot", "create", name, "--kind", kind, "--confirmed-lsn", self.begin)
        self.end = fill(self.p1, 5_000, prefix="more/", value_bytes=1000)
        self.p1.towctl("slot", "create", "marker", "--kind", "consumer")
        self.before = self.p1.status()
        self.assertLessEqual(self.before["wal"]["first_lsn"], self.begin + 1)

    # --- Starts ---

    def consumer_start(self, **changed):
        return {"protocol_version": 1, "slot": "victim", **CONSUMER, "process_instance": 77, "credit_bytes": 1,
                "from_slot": True, **changed}

    def replica_start(self, **changed):
        history = [types_pb2.HistoryEntry(term=entry["term"], start_lsn=entry["start_lsn"],
                                          term_id=int(entry["term_id"], 16)) for entry in self.before["history"]]
        return {"protocol_version": 1, "slot": "victim-r", **REPLICA, "process_instance": 78, "incarnation": 79,
                "credit_bytes": 1, "cluster_id": self.before["cluster_id"], "history": history, "lsn": self.begin,
                "chain": self.chain(), "first_retained_lsn": 1, **changed}

    def chain(self):
        """Chain after `begin`, which a stream from there does not tell."""
        line = self.p1.towctl("tail", "--from", self.begin, "--limit", "1").stdout
        return int(re.search(r'"chain":"([0-9a-f]{16})"', line).group(1), 16)

    def pull(self, **start):
        stream = RawPull(self.channel, **start)
        self.addCleanup(stream.close)
        return stream

    def open(self, start):
        """A session that has been sent one record, begin + 1."""
        stream = wait_until(lambda: self.try_open(start), "the slot is free")
        self.assertEqual(stream.started.from_lsn, self.begin + 1)
        return stream

    def try_open(self, start):
        stream = self.pull(**start)
        try:
            return stream.begin()
        except AssertionError as error:
            if "slot_in_use" in str(error):  # the end of the stream before is under way
                return None
            raise

    # --- What must not change ---

    def metric(self, name):
        """The value of a sample, 0 if there is none."""
        found = re.search(re.escape(name) + r" (\d+)$", self.p1.http("/metrics")[1], re.MULTILINE)
        return int(found.group(1)) if found else 0

    def wait_for_retention(self):
        """Acks of an honest consumer are saved by the same timer that removes log, before it does so: the second save is
        behind a removal that had every chance."""
        with self.p1.client.follow("marker") as follower:
            records = iter(follower)
            for _ in range(2):
                saves = self.metric("towline_slot_saves_total")
                self.p1.client.write(towline_client.put(b"marker", b"1"))
                follower.ack(next(records).lsn)
                wait_until(lambda: self.metric("towline_slot_saves_total") > saves, "a save of the slots")

    def assert_nothing_moved(self):
        self.wait_for_retention()
        status = self.p1.towctl_json("status")
        self.assertEqual((status["state"], status["state_reason"]), ("writable", ""))
        self.assertEqual(status["wal"]["first_lsn"], self.before["wal"]["first_lsn"])
        slots = {slot["name"]: slot["confirmed_lsn"] for slot in status["slots"] if slot["name"] != "marker"}
        self.assertEqual(slots, {"victim": self.begin, "victim-r": self.begin})
        self.p1.client.write(towline_client.put(b"still", b"writable"))

    def tearDown(self):
        self.assert_nothing_moved()
        # The same acks from an honest client free the log: what was looked at above does move.
        for start in (self.consumer_start(), self.replica_start()):
            stream = self.open(start)
            stream.send(credit=replication_pb2.PullCredit(granted_bytes=1 << 30))
            while True:
                response = next(stream._call)
                kind = response.WhichOneof("kind")
                last = response.frames.last_lsn if kind == "frames" else \
                    response.records.records[-1].lsn if kind == "records" else 0
                if last >= self.end:
                    break
            stream.ack(self.end)
            self.p1.wait_slot(start["slot"], lambda slot: slot["confirmed_lsn"] == self.end, "confirmed")
        self.p1.wait(lambda status: status["wal"]["first_lsn"] > self.begin + 1, "pruned")

    # --- Acks ---

    def test_a_request_for_a_snapshot_that_is_no_message_is_refused(self):
        fetch = self.channel.unary_stream("/towline.v1.ReplicationService/FetchSnapshot")
        with self.assertRaises(grpc.RpcError) as raised:
            next(fetch(b"\xff\xff\xff", timeout=30 * harness.SLOW))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(towline_client.error_of(raised.exception).reason, "malformed")
        self.assertEqual(self.p1.status()["state"], "writable")

    def test_acks(self):
        sent = self.begin + 1
        durable = self.end
        cases = [
            ("another generation", sent, {"slot_generation": 12345}, "stale_generation"),
            ("no generation", sent, {"slot_generation": 0}, "stale_generation"),
            ("another session", sent, {"session_id": 12345}, "stale_session"),
            ("no session", sent, {"session_id": 0}, "stale_session"),
            ("the next record", sent + 1, {}, "ack_ahead"),
            ("what is durable", durable, {}, "ack_ahead"),
            ("2^63", 2**63, {}, "ack_ahead"),
            ("2^64 - 1", MOST, {}, "ack_ahead"),
            ("flushed only", sent, {"flushed_lsn": durable}, "ack_ahead"),
            ("applied only", sent, {"applied_lsn": MOST}, "ack_ahead"),
            ("received only", sent, {"received_lsn": 2**63}, "ack_ahead"),
            ("flushed above received", sent, {"received_lsn": self.begin, "applied_lsn": self.begin}, "ack_order"),
            ("applied above received", sent, {"received_lsn": self.begin, "flushed_lsn": self.begin}, "ack_order"),
            ("a lower term", sent, {"term": 0}, "stale_term"),
        ]
        # A member that has seen a higher term makes the primary step down, as it must; a consumer cannot.
        higher = [("a higher term", sent, {"term": 2}, "stale_primary"),
                  ("the highest term", sent, {"term": MOST}, "stale_primary")]
        expected = {}
        for start, its_cases in ((self.consumer_start(), cases + higher), (self.replica_start(), cases)):
            for what, lsn, changed, reason in its_cases:
                with self.subTest(what, slot=start["slot"]):
                    stream = self.open(start)
                    stream.ack(lsn, **changed)
                    self.assertEqual(stream.reason(), reason)
                    expected[reason] = expected.get(reason, 0) + 1
        for reason, count in expected.items():
            self.assertEqual(self.metric(f'towline_replication_refused_requests_total{{reason="{reason}"}}'), count)

    def test_acks_of_a_superseded_connection(self):
        old = self.open(self.consumer_start())
        new = self.open(self.consumer_start())
        old.ack(self.begin + 1)
        self.assertEqual(old.reason(), "superseded")
        new.ack(self.begin + 1, session_id=old.started.session_id)
        self.assertEqual(new.reason(), "stale_session")
        self.assertEqual(self.metric("towline_replication_sessions_superseded_total"), 1)
        # Another process gets nothing while a session is there.
        honest = self.open(self.consumer_start())
        self.assertEqual(self.pull(**self.consumer_start(process_instance=5)).reason(), "slot_in_use")
        honest.close()

    # --- Requests out of order ---

    def test_requests_out_of_order(self):
        ack = replication_pb2.PullAck(session_id=1, slot_generation=1, term=1, received_lsn=MOST, flushed_lsn=MOST)
        stream = self.pull()
        stream.send(ack=ack)
        self.assertEqual(stream.reason(), "stale_session")
        stream = self.pull()
        stream.send(credit=replication_pb2.PullCredit(granted_bytes=MOST))
        self.assertEqual(stream.reason(), "invalid_start")
        stream = self.pull()
        stream.send()
        self.assertEqual(stream.reason(), "invalid_request")
        stream = self.open(self.consumer_start())
        stream.send(start=replication_pb2.PullStart(**self.consumer_start()))
        self.assertEqual(stream.reason(), "invalid_start")
        # Credit is cumulative: none at all takes nothing back, and is no error.
        stream = self.open(self.consumer_start())
        stream.send(credit=replication_pb2.PullCredit(granted_bytes=0))
        stream.ack(MOST)
        self.assertEqual(stream.reason(), "ack_ahead")

    # --- Starts with one field wrong ---

    def test_starts(self):
        cluster = self.before["cluster_id"]
        own = replication_pb2.PullStart(**self.replica_start()).history
        positioned = {"from_slot": False, "cluster_id": cluster, "lsn": self.begin}
        position = types_pb2.Position
        entry = types_pb2.HistoryEntry
        consumer = [
            ("invalid_name", {"slot": ""}), ("invalid_name", {"slot": "../victim"}), ("invalid_name", {"slot": "Victim"}),
            ("invalid_name", {"slot": "x" * 64}), ("invalid_name", {"slot": "x" * 1_000_000}),
            ("invalid_name", {"slot": "a\0b"}),
            ("protocol_version", {"protocol_version": 0}), ("protocol_version", {"protocol_version": 2**32 - 1}),
            ("invalid_start", {"kind": 0}), ("invalid_start", {"kind": 99}), ("invalid_start", {"kind": -1}),
            ("invalid_start", {"format": 0}), ("invalid_start", {"format": 77}),
            ("invalid_start", {"format": replication_pb2.RECORD_FORMAT_FRAMES}),
            ("invalid_start", {"process_instance": 0}), ("invalid_start", {"credit_bytes": 0}),
            ("invalid_start", {"advertised_address": "a" * 2000}),
            ("invalid_start", {"cluster_id": "rubbish"}), ("cluster_mismatch", {"cluster_id": "0" * 24}),
            ("invalid_start", {**positioned, "lsn": MOST}), ("ahead", {**positioned, "lsn": 2**63}),
            ("ahead", {**positioned, "lsn": self.end + 1_000_000}),
            ("malformed", {"lsn": self.begin, "from_slot": False}), ("malformed", {**positioned, "from_slot": True}),
            ("diverged_same_term", {**positioned, "history": own, "chain": 12345}),
            ("diverged", {**positioned, "history": [entry(term=1, start_lsn=1, term_id=5)]}),
            ("malformed", {**positioned, "history": [entry(term=2, start_lsn=9, term_id=5), *own]}),
            ("invalid_start", {**positioned, "history": [entry(term=MOST, start_lsn=1, term_id=5)]}),
            ("stale_primary", {**positioned, "history": [entry(term=9, start_lsn=1, term_id=5)]}),
            ("stale_primary", {**positioned, "promised_term": 2}),
            ("invalid_start", {**positioned, "promised_term": MOST}),
            ("invalid_start", {**positioned, "exact_from": position(term=MOST, lsn=1)}),
            ("inexact", {**positioned, "exact_from": position(term=1, term_id=5, lsn=1)}),
            ("slot_exists", {"temporary": True}),
            ("slot_kind", {"slot": "victim-r"}),
        ]
        replica = [
            ("invalid_start", {"incarnation": 0}), ("invalid_start", {"process_instance": 0}),
            ("invalid_start", {"format": replication_pb2.RECORD_FORMAT_RECORDS}), ("self", {"slot": "p1"}),
            ("malformed", {"from_slot": True}), ("malformed", {"history": []}), ("malformed", {"cluster_id": ""}),
            ("diverged_same_term", {"chain": 12345}), ("slot_kind", {"slot": "victim"}),
        ]
        for start, cases in ((self.consumer_start(), consumer), (self.replica_start(), replica)):
            for reason, changed in cases:
                with self.subTest(reason, changed=repr(changed)[:200]):
                    self.assertEqual(self.pull(**{**start, **changed}).reason(), reason)
        by_reason = self.p1.towctl_json("status")["resync"]["by_reason"]
        self.assertEqual({key: by_reason.get(key) for key in ("refuse/self", "refuse/diverged_same_term")},
                         {"refuse/self": 1, "refuse/diverged_same_term": 1})
        self.assertGreater(self.metric('towline_replication_refused_requests_total{reason="invalid_name"}'), 0)
        self.assertGreater(
            self.metric('towline_consumer_decisions_total{decision="refuse",reason="cluster_mismatch"}'), 0)

    def test_a_start_with_every_field_wrong(self):
        rubbish = {"protocol_version": 1, "slot": "\x7f" * 1000, "kind": -5, "format": 2**31 - 1,
                   "advertised_address": "x" * 100_000, "incarnation": MOST, "process_instance": 0, "cluster_id": "?" * 999,
                   "history": [types_pb2.HistoryEntry(term=MOST, start_lsn=MOST, term_id=MOST)] * 1000, "lsn": MOST,
                   "chain": MOST, "first_retained_lsn": MOST, "oldest_rewind_lsn": MOST,
                   "exact_from": types_pb2.Position(cluster_id="x", term=MOST, term_id=MOST, lsn=MOST, chain=MOST),
                   "promised_term": MOST, "credit_bytes": 0, "from_slot": True, "temporary": True}
        self.assertEqual(self.pull(**rubbish).reason(), "invalid_name")


if __name__ == "__main__":
    harness.main()
