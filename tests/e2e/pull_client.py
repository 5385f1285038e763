"""Owners of slots that are written by hand: raw starts, acks of any value, snapshots read as slowly as one likes."""

import queue
import random

from harness import SLOW
from towline.v1 import replication_service_pb2 as pb
from towline.v1 import replication_service_pb2_grpc as pb_grpc
from towline.v1 import slot_service_pb2, types_pb2

REPLICA = slot_service_pb2.SLOT_KIND_REPLICA
CONSUMER = slot_service_pb2.SLOT_KIND_CONSUMER
DECISIONS = {number: name[len("RESUME_DECISION_"):].lower() for name, number in pb.ResumeDecision.items()}
TIMEOUT = 30 * SLOW


def replica_start(slot, **fields):
    """The start of an empty replica; `fields` say what else it shows. Each name has an incarnation of its own."""
    defaults = dict(protocol_version=1, slot=slot, kind=REPLICA, format=pb.RECORD_FORMAT_FRAMES, credit_bytes=8 << 20,
                    incarnation=random.Random(slot).getrandbits(63) | 1, process_instance=random.getrandbits(63) | 1)
    return pb.PullStart(**{**defaults, **fields})


def consumer_start(slot, **fields):
    defaults = dict(protocol_version=1, slot=slot, kind=CONSUMER, format=pb.RECORD_FORMAT_RECORDS,
                    credit_bytes=8 << 20, process_instance=random.getrandbits(63) | 1)
    return pb.PullStart(**{**defaults, **fields})


def history(*entries):
    """[(term, first LSN, term_id), ...] as messages."""
    return [types_pb2.HistoryEntry(term=term, start_lsn=start_lsn, term_id=term_id)
            for term, start_lsn, term_id in entries]


def plan(node, start):
    """What Pull would decide."""
    return node.client.replication.PlanResume(pb.PlanResumeRequest(start=start), timeout=TIMEOUT)


class PullStream:
    """One Pull stream, on the node's connection or another `channel`. `started` is the server's decision; grpc.RpcError
    if it ends without one."""

    def __init__(self, node, start, channel=None):
        self._requests = queue.SimpleQueue()
        stub = node.client.replication if channel is None else pb_grpc.ReplicationServiceStub(channel)
        self._call = stub.Pull(iter(self._requests.get, None), timeout=TIMEOUT)
        self.lsn = 0  # last record that arrived
        self.send(start=start)
        self.started = next(self._call).started
        if self.decision == "partial":
            self.lsn = self.started.from_lsn - 1

    @property
    def decision(self):
        return DECISIONS[self.started.decision]

    def send(self, **kind):
        self._requests.put(pb.PullRequest(**kind))

    def ack(self, lsn, **fields):
        """Says that everything up to `lsn` is received, flushed and applied; `fields` replace what is sent for that."""
        defaults = dict(session_id=self.started.session_id, slot_generation=self.started.slot_generation,
                        term=self.started.term, received_lsn=lsn, flushed_lsn=lsn, applied_lsn=lsn)
        self.send(ack=pb.PullAck(**{**defaults, **fields}))

    def receive(self, until_lsn):
        """Takes messages until that record has arrived."""
        while self.lsn < until_lsn:
            response = next(self._call)
            kind = response.WhichOneof("kind")
            assert kind != "ended", response.ended
            if kind == "frames":
                self.lsn = response.frames.last_lsn
            elif kind == "records":
                self.lsn = response.records.records[-1].lsn

    def ended(self):
        """Takes messages until the server ends the session for a reason, and returns that."""
        for response in self._call:
            if response.WhichOneof("kind") == "ended":
                return response.ended
        raise AssertionError("the stream ended without a reason")

    def close(self):
        """Ends the session in order."""
        self._requests.put(None)
        for _ in self._call:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._requests.put(None)
        self._call.cancel()


class SnapshotStream:
    """One FetchSnapshot stream; what is not read yet stays with the server, but for what the transport buffers."""

    def __init__(self, node, start):
        self._call = node.client.replication.FetchSnapshot(pb.FetchSnapshotRequest(start=start), timeout=TIMEOUT)
        self.header = next(self._call).header

    def finish(self):
        """Reads the rest and returns its totals."""
        for response in self._call:
            if response.WhichOneof("kind") == "end":
                return response.end
        raise AssertionError("the snapshot is incomplete")

    def cancel(self):
        self._call.cancel()
