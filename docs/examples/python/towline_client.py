"""A small Towline client: write, read, follow the change stream with a slot.

Needs the generated stubs on the module search path (see generate_stubs.py) and Debian's python3-grpcio. It is an
example to copy from, not a package.
"""

import queue
import random
import threading

import grpc
from google.protobuf.message import DecodeError
from towline.v1 import admin_service_pb2, admin_service_pb2_grpc, change_pb2, kv_service_pb2, kv_service_pb2_grpc
from towline.v1 import replication_service_pb2 as replication_pb2
from towline.v1 import replication_service_pb2_grpc as replication_pb2_grpc
from towline.v1 import slot_service_pb2, slot_service_pb2_grpc, types_pb2

PROTOCOL_VERSION = 1
CREDIT_BYTES = 8 << 20
# A single record may be larger than gRPC's default limit of 4 MiB.
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", 72 << 20), ("grpc.max_send_message_length", 72 << 20),
                   ("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 5_000)]


class TowlineError(Exception):
    """A refusal. `reason` is stable; `next_action` says what to do."""

    def __init__(self, reason, message, next_action="", metadata=None):
        super().__init__(f"{reason}: {message}" + (f" ({next_action})" if next_action else ""))
        self.reason = reason
        self.next_action = next_action
        self.metadata = dict(metadata or {})


def error_of(rpc_error):
    """The ErrorDetail inside a gRPC error, or None."""
    for key, value in rpc_error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        try:
            for packed in types_pb2.RpcStatus.FromString(value).details:
                detail = types_pb2.ErrorDetail()
                if packed.Unpack(detail):
                    return detail
        except DecodeError:
            return None
    return None


def raise_towline_error(rpc_error):
    detail = error_of(rpc_error)
    if detail is None:
        raise rpc_error
    raise TowlineError(detail.reason, detail.message, detail.next_action, detail.metadata) from rpc_error


def put(key, value, ttl_ms=0):
    return change_pb2.Operation(put=change_pb2.Put(key=key, value=value, ttl_ms=ttl_ms))


def delete(key):
    return change_pb2.Operation(delete=change_pb2.Delete(key=key))


def delete_range(begin, end):
    return change_pb2.Operation(delete_range=change_pb2.DeleteRange(begin=begin, end=end))


def message(topic, payload):
    return change_pb2.Operation(message=change_pb2.Message(topic=topic, payload=payload))


class Client:
    """One node of a cluster. Writes need the primary; reads and follow work on any node."""

    def __init__(self, endpoint, timeout_seconds=10.0):
        self._channel = grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        self._timeout = timeout_seconds
        self.kv = kv_service_pb2_grpc.KvServiceStub(self._channel)
        self.replication = replication_pb2_grpc.ReplicationServiceStub(self._channel)
        self.slots = slot_service_pb2_grpc.SlotServiceStub(self._channel)
        self.admin = admin_service_pb2_grpc.AdminServiceStub(self._channel)

    def close(self):
        self._channel.close()

    def write(self, *operations, conditions=(), client_id="", sequence=0):
        """Writes the operations as one record and returns its LSN. A retry with the same client_id and sequence is not
        applied twice."""
        request = kv_service_pb2.WriteRequest(operations=operations, conditions=conditions)
        if client_id:
            request.request_id.client_id = client_id
            request.request_id.sequence = sequence
        try:
            return self.kv.Write(request, timeout=self._timeout).position.lsn
        except grpc.RpcError as error:
            raise_towline_error(error)

    def get(self, key):
        """The value, or None."""
        try:
            response = self.kv.Get(kv_service_pb2.GetRequest(key=key), timeout=self._timeout)
        except grpc.RpcError as error:
            raise_towline_error(error)
        return response.entry.value if response.HasField("entry") else None

    def scan(self, prefix=b"", pinned=False):
        """All entries with the prefix, in key order."""
        token = ""
        while True:
            request = kv_service_pb2.ScanRequest(prefix=prefix, page_token=token, pinned=pinned and not token)
            try:
                page = self.kv.Scan(request, timeout=self._timeout)
            except grpc.RpcError as error:
                raise_towline_error(error)
            yield from page.entries
            token = page.next_page_token
            if not token:
                return

    def follow(self, slot, after_lsn=None):
        """The change stream, see Follower. Without after_lsn it goes on where the slot stands, or with what comes from
        now on if there is no such slot yet; after_lsn = 0 means everything from the first record."""
        cluster_id = ""
        if after_lsn:  # a position is one of a cluster
            cluster_id = self.admin.GetHistory(admin_service_pb2.GetHistoryRequest(), timeout=self._timeout).cluster_id
        return Follower(self.replication, slot, after_lsn, cluster_id)


class Follower:
    """Decoded records of the log in LSN order, held for us by a slot.

        with client.follow("my-index") as follower:
            for record in follower:
                work_on(record.change)
                follower.ack(record.lsn)   # the log up to here may go

    The server keeps the log for the slot from the last acked LSN on, so a follower that comes back later misses nothing.
    Ends with TowlineError when the server ends the session, and with grpc.RpcError when the connection breaks; in both
    cases make a new one.
    """

    def __init__(self, stub, slot, after_lsn=None, cluster_id=""):
        self._requests = queue.SimpleQueue()
        self._granted = CREDIT_BYTES
        self._received = 0
        self._confirmed = 0
        self._heartbeat = 0
        self._heartbeats = []  # (sequence, durable LSN) that our confirmed LSN does not cover yet
        self._heartbeat_covered = 0
        self._closed = False
        start = replication_pb2.PullStart(
            protocol_version=PROTOCOL_VERSION, slot=slot, kind=slot_service_pb2.SLOT_KIND_CONSUMER,
            format=replication_pb2.RECORD_FORMAT_RECORDS, process_instance=random.getrandbits(63) | 1,
            credit_bytes=self._granted, from_slot=after_lsn is None, lsn=after_lsn or 0,
            cluster_id=cluster_id)
        self._requests.put(replication_pb2.PullRequest(start=start))
        self._call = stub.Pull(iter(self._requests.get, None))
        try:
            self.started = next(self._call).started
        except grpc.RpcError as error:
            self.close()
            raise_towline_error(error)
        if self.started.decision != replication_pb2.RESUME_DECISION_PARTIAL:
            self.close()
            raise TowlineError(self.started.reason, self.started.message, self.started.next_action)
        self._received = self._confirmed = self.started.from_lsn - 1

    def __iter__(self):
        try:
            for response in self._call:
                kind = response.WhichOneof("kind")
                if kind == "records":
                    self._received = response.records.records[-1].lsn
                    yield from response.records.records
                    # What is credited is the size of the records in the log, at most 40 bytes more than here.
                    self._granted += response.ByteSize() + 40 * len(response.records.records)
                    self._requests.put(replication_pb2.PullRequest(
                        credit=replication_pb2.PullCredit(granted_bytes=self._granted)))
                elif kind == "heartbeat":
                    self._heartbeat = response.heartbeat.sequence
                    self._heartbeats.append((self._heartbeat, response.heartbeat.durable_lsn))
                    self._send_ack()
                elif kind == "ended":
                    ended = response.ended
                    raise TowlineError(ended.reason, ended.message, ended.next_action, ended.metadata)
        except grpc.RpcError as error:
            if not self._closed:
                raise_towline_error(error)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def ack(self, lsn):
        """We no longer need the records up to `lsn`."""
        self._confirmed = max(self._confirmed, lsn)
        self._send_ack()

    def close(self):
        """Ends the session in order: the server reads our last ack before it closes its side."""
        if self._closed:
            return
        self._closed = True
        self._requests.put(None)
        guard = threading.Timer(2.0, self._call.cancel)
        guard.start()
        try:
            for _ in self._call:
                pass
        except grpc.RpcError:
            pass  # it had ended already, or was cut off
        finally:
            guard.cancel()

    def _send_ack(self):
        while self._heartbeats and self._heartbeats[0][1] <= self._confirmed:
            self._heartbeat_covered = self._heartbeats.pop(0)[0]
        self._requests.put(replication_pb2.PullRequest(ack=replication_pb2.PullAck(
            session_id=self.started.session_id, slot_generation=self.started.slot_generation, term=self.started.term,
            received_lsn=self._received, flushed_lsn=self._confirmed, applied_lsn=self._confirmed,
            heartbeat_sequence=self._heartbeat, heartbeat_applied_sequence=self._heartbeat_covered)))
