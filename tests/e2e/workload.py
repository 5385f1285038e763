"""Clients that remember what was promised to them."""

import random
import threading

import grpc
from harness import SLOW, wait_until
import towline_client  # the stubs are on the path once harness is imported
from towline.v1 import kv_service_pb2, kv_service_pb2_grpc


# Store files are compressed: tests that need a snapshot of some size need values that stay as large as they are.
INCOMPRESSIBLE = random.Random(1).randbytes(4 << 20)


def value_of(index, size):
    """The one value that record `index` may have; sizes vary around `size`."""
    length = size // 2 + (index * 7919) % (size + 1)
    head = b"%d:" % index
    start = index * 104729 % (len(INCOMPRESSIBLE) - length)
    return head + INCOMPRESSIBLE[start:start + max(0, length - len(head))]


class StreamWriter:
    """Writes PREFIX + index = value_of(index) over WriteStream from a thread, on and on, and knows which indexes were
    acknowledged. A broken stream is followed by a new one with new indexes; what was under way then is unknown."""

    def __init__(self, node, prefix="w/", value_bytes=200, batch=16, window=64, pace_seconds=0.0):
        self.node = node
        self.prefix = prefix.encode()
        self.value_bytes = value_bytes
        self.batch = batch
        self.window = window  # batches under way
        self.pace_seconds = pace_seconds  # between batches
        self.acked = []    # (first, last) indexes, both inclusive
        self.refused = {}  # index -> reason
        self.next_index = 0
        self.streams = 0
        self.error = None  # of the writer itself
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        """Ends the stream in order, so that everything sent is answered."""
        self._stop.set()
        self._thread.join(60 * SLOW)
        assert not self._thread.is_alive(), "the writer does not end"
        if self.error:
            raise self.error
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, traceback):
        self._stop.set()
        self._thread.join(60 * SLOW)
        if kind is None and self.error:
            raise self.error

    def acked_count(self):
        return sum(last - first + 1 for first, last in list(self.acked)) - len(self.refused)

    def wait_acked(self, more, timeout=30.0):
        """Waits until `more` further records are acknowledged."""
        target = self.acked_count() + more

        def reached():
            if self.error:
                raise self.error
            return self.acked_count() >= target

        wait_until(reached, f"{target} acknowledged writes", timeout, describe=self.acked_count)

    def key(self, index):
        return self.prefix + b"%010d" % index

    def _run(self):
        try:
            while not self._stop.is_set():
                channel = grpc.insecure_channel(self.node.endpoint, options=towline_client.CHANNEL_OPTIONS)
                try:
                    self._one_stream(kv_service_pb2_grpc.KvServiceStub(channel))
                except grpc.RpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                        raise
                    self._stop.wait(0.02)  # the node is away; it will be back
                finally:
                    channel.close()
        except Exception as error:  # for the thread that waits for us
            self.error = error

    def _one_stream(self, stub):
        self.streams += 1
        base = self.next_index  # index of stream sequence 1
        credit = threading.Semaphore(self.window)
        ended = threading.Event()

        def requests():
            sequence = 1
            while not self._stop.is_set() and not ended.is_set():
                if not credit.acquire(timeout=0.1):
                    continue
                elements = []
                for _ in range(self.batch):
                    index = self.next_index
                    self.next_index += 1
                    elements.append(kv_service_pb2.WriteRequest(
                        operations=[towline_client.put(self.key(index), value_of(index, self.value_bytes))]))
                yield kv_service_pb2.WriteStreamRequest(first_sequence=sequence, elements=elements)
                sequence += self.batch
                if self.pace_seconds:
                    self._stop.wait(self.pace_seconds)

        answered = 0  # stream sequence
        try:
            for response in stub.WriteStream(requests()):
                for refused in response.refused:
                    self.refused[base + refused.sequence - 1] = refused.error.reason
                if response.acked_sequence > answered:
                    self.acked.append((base + answered, base + response.acked_sequence - 1))
                    for _ in range(response.acked_sequence // self.batch - answered // self.batch):
                        credit.release()
                    answered = response.acked_sequence
        finally:
            ended.set()

    # --- Checking ---

    def check(self, test, *nodes):
        """Every acknowledged record is there with its value; whatever else is there was at least sent."""
        for node in nodes:
            found = {entry.key: entry.value for entry in node.client.scan(self.prefix)}
            missing = [index for first, last in self.acked for index in range(first, last + 1)
                       if index not in self.refused and self.key(index) not in found]
            test.assertEqual(missing[:5], [], f"{node.node_id} lacks {len(missing)} acknowledged records")
            for key, value in found.items():
                index = int(key[len(self.prefix):])
                test.assertLess(index, self.next_index)
                test.assertNotIn(index, self.refused, f"{node.node_id} holds a refused record")
                test.assertEqual(value, value_of(index, self.value_bytes), f"{node.node_id}: value of {key}")


def fill(node, records, prefix="fill/", value_bytes=1000, batch=200):
    """Writes `records` keys and returns the last LSN."""
    def requests():
        for first in range(0, records, batch):
            yield kv_service_pb2.WriteStreamRequest(first_sequence=first + 1, elements=[
                kv_service_pb2.WriteRequest(operations=[
                    towline_client.put(b"%s%08d" % (prefix.encode(), index), value_of(index, value_bytes))])
                for index in range(first, min(first + batch, records))])

    last = None
    for response in node.client.kv.WriteStream(requests(), timeout=60 * SLOW):
        assert not response.refused, response.refused
        last = response
    assert last is not None and last.acked_sequence == records, last
    return last.position.lsn
