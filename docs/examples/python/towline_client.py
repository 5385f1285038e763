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
                   ("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 5_000),
                   # So that a new channel does not inherit how long an older one still waits to connect again.
                   ("grpc.use_local_subchannel_pool", 1)]


class TowlineError(Exception):
    """An error that says why. `reason` is stable, `next_action` for people; `code` is a grpc.StatusCode, or None."""

    def __init__(self, reason, message, next_action="", metadata=None, code=None):
        super().__init__(f"{reason}: {message}" + (f" ({next_action})" if next_action else ""))
        self.reason = reason
        self.next_action = next_action
        self.metadata = dict(metadata or {})
        self.code = code


class Refused(TowlineError):
    """The server's decision not to stream. `started` is its answer, with the numbers that it compared."""

    def __init__(self, started):
        super().__init__(started.reason, started.message, started.next_action)
        self.started = started
        self.is_temporary = started.decision == replication_pb2.RESUME_DECISION_RETRY_AFTER


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
    raise TowlineError(detail.reason, detail.message, detail.next_action, detail.metadata,
                       rpc_error.code()) from rpc_error


def new_process_instance():
    return random.getrandbits(63) | 1


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
        self._endpoint = endpoint
        self._timeout = timeout_seconds
        self._connect()

    def _connect(self):
        self._channel = grpc.insecure_channel(self._endpoint, options=CHANNEL_OPTIONS)
        self.kv = kv_service_pb2_grpc.KvServiceStub(self._channel)
        self.replication = replication_pb2_grpc.ReplicationServiceStub(self._channel)
        self.slots = slot_service_pb2_grpc.SlotServiceStub(self._channel)
        self.admin = admin_service_pb2_grpc.AdminServiceStub(self._channel)

    def close(self):
        self._channel.close()

    def reconnect(self):
        """Connects anew at once. After a failure gRPC itself waits longer and longer, and answers with it meanwhile."""
        self.close()
        self._connect()

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
        for page in self.scan_pages(prefix, pinned):
            yield from page.entries

    def scan_pages(self, prefix=b"", pinned=False):
        """The same in pages, each with the position that it was read at. Pinned: all pages are of one position."""
        token = ""
        while True:
            request = kv_service_pb2.ScanRequest(prefix=prefix, page_token=token, pinned=pinned and not token)
            try:
                page = self.kv.Scan(request, timeout=self._timeout)
            except grpc.RpcError as error:
                raise_towline_error(error)
            yield page
            token = page.next_page_token
            if not token:
                return

    def create_slot(self, name, confirmed_lsn=None):
        """Makes a consumer's slot that holds the log behind confirmed_lsn; without one, behind the state of now."""
        request = slot_service_pb2.CreateSlotRequest(name=name, kind=slot_service_pb2.SLOT_KIND_CONSUMER,
                                                     confirmed_lsn=confirmed_lsn)
        try:
            return self.slots.CreateSlot(request, timeout=self._timeout).slot
        except grpc.RpcError as error:
            raise_towline_error(error)

    def get_slot(self, name):
        """The slot, or None."""
        try:
            return self.slots.GetSlot(slot_service_pb2.GetSlotRequest(name=name), timeout=self._timeout).slot
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise_towline_error(error)

    def drop_slot(self, name):
        """Refused (`slot_in_use`) while somebody is connected."""
        try:
            self.slots.DropSlot(slot_service_pb2.DropSlotRequest(name=name), timeout=self._timeout)
        except grpc.RpcError as error:
            raise_towline_error(error)

    def follow(self, slot, after_lsn=None, position=None, process_instance=0):
        """The change stream, see Follower. It begins

        - behind `position`, a types_pb2.Position (cluster_id, lsn, chain) that was stored: the server compares it;
        - or behind the record `after_lsn`, unchecked; 0 means everything from the first record;
        - or, without either, where the slot stands; with what comes from now on if there is no such slot yet.

        A program that connects again passes the same process_instance: its older session is then superseded.
        """
        start = replication_pb2.PullStart(
            protocol_version=PROTOCOL_VERSION, slot=slot, kind=slot_service_pb2.SLOT_KIND_CONSUMER,
            format=replication_pb2.RECORD_FORMAT_RECORDS, credit_bytes=CREDIT_BYTES,
            process_instance=process_instance or new_process_instance())
        if position is not None:
            start.cluster_id, start.lsn, start.chain = position.cluster_id, position.lsn, position.chain
        elif after_lsn is None:
            start.from_slot = True
        elif after_lsn:  # a position is one of a cluster
            start.lsn = after_lsn
            start.cluster_id = self.admin.GetHistory(admin_service_pb2.GetHistoryRequest(),
                                                     timeout=self._timeout).cluster_id
        return Follower(self.replication, start)


class Follower:
    """Decoded records of the log in LSN order, held for us by a slot.

        with client.follow("my-index") as follower:
            for record in follower:
                work_on(record.change)
                follower.ack(record.lsn)   # the log up to here may go

    The server keeps the log for the slot behind the last acked LSN, so a follower that comes back later misses nothing.
    Ends with Refused if the server does not stream at all, with TowlineError when it ends the session, and with
    grpc.RpcError when the connection breaks; then make a new one. Work on one record or batch that takes longer than
    15 s ends the session: heartbeats are answered only while we are asked for more.
    """

    def __init__(self, stub, start):
        self._requests = queue.SimpleQueue()
        self._granted = start.credit_bytes
        self._received = 0
        self._confirmed = 0
        self._heartbeat = 0
        self._heartbeats = []  # (sequence, durable LSN) that our confirmed LSN does not cover yet
        self._heartbeat_covered = 0
        self._closed = False
        self._requests.put(replication_pb2.PullRequest(start=start))
        self._call = stub.Pull(iter(self._requests.get, None))
        try:
            self.started = next(self._call).started
        except grpc.RpcError as error:
            self.close()
            raise_towline_error(error)
        if self.started.decision != replication_pb2.RESUME_DECISION_PARTIAL:
            self.close()
            raise Refused(self.started)
        self._received = self._confirmed = self.started.from_lsn - 1

    def __iter__(self):
        for records in self.batches():
            yield from records

    def batches(self):
        """Lists of records as they arrive, about 1 MiB or one larger record, to be worked on together. An empty list
        comes with every heartbeat, a few times a second: the time to look at other things."""
        try:
            for response in self._call:
                kind = response.WhichOneof("kind")
                if kind == "records":
                    records = list(response.records.records)
                    self._received = records[-1].lsn
                    yield records
                    # What is credited is the size of the records in the log, at most 40 bytes more than here.
                    self._granted += response.ByteSize() + 40 * len(records)
                    self._requests.put(replication_pb2.PullRequest(
                        credit=replication_pb2.PullCredit(granted_bytes=self._granted)))
                elif kind == "heartbeat":
                    self._heartbeat = response.heartbeat.sequence
                    self._heartbeats.append((self._heartbeat, response.heartbeat.durable_lsn))
                    self._send_ack()
                    yield []
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
