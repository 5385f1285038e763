"""Records what clients and nodes do as a history for tests/history/checker.py, which then says whether it holds.

    with Recorder(test, nodes) as recorder:
        recorder.write_and_read("w1", replicas=1)
        recorder.consume("c1")
        ...                                # faults
        recorder.stop()
    recorder.check(primary)
"""

import collections
import json
import random
import subprocess
import sys
import threading
import time

import grpc
from harness import SLOW, SOURCE, towctl, wait_until
import towline_client  # the stubs are on the path once harness is imported
from recorder_consumer import Consumer
from towline.v1 import kv_service_pb2

sys.path.insert(0, str(SOURCE / "tests/history"))
import checks  # noqa: E402
import model  # noqa: E402

KEYS = 20
PATIENCE_SECONDS = 60 * SLOW  # after which a write whose outcome is unknown stays so
NOT_LOGGED = ("not_primary", "starting", "stopping", "read_only", "too_few_replicas", "below_min_replicas", "recovery_required",
              "disk_full", "queue_full", "stale_primary")


def hex_id(number):
    return f"{number:016x}"


def position_fields(position):
    if not position.lsn:
        return None
    return {"term": position.term, "term_id": hex_id(position.term_id), "lsn": position.lsn}


def record_fields(line):
    """A line of `towctl wal dump` as the fields of a record."""
    puts = []
    for operation in line.get("operations") or []:
        if operation.get("put"):
            puts.append([operation["put"]["key"], operation["put"]["value"]])
        elif operation.get("delete"):
            puts.append([operation["delete"]["key"], None])
    request = line.get("request_id")
    return {"lsn": line["lsn"], "term": line["term"], "chain": line["chain"], "puts": puts,
            "request": [request["client_id"], request["sequence"]] if request and request.get("client_id") else None}


class Recorder:
    """The events of a run, in memory. All methods from any thread."""

    def __init__(self, test, nodes, liveness_seconds=60.0, sample_seconds=0.1):
        self.test = test
        self.nodes = list(nodes)
        self.events = []
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self._operations = 0
        self._stop = threading.Event()
        self._threads = []
        self._errors = []
        self._samples = {}  # node -> (uptime, decisions) of its newest sample
        self._decisions = collections.Counter()  # of processes that are gone
        self.acked = 0      # writes
        self.received = 0   # records, by consumers
        self._sample_seconds = sample_seconds
        self.emit("run", liveness_seconds=liveness_seconds * SLOW)

    def now(self):
        return round(time.monotonic() - self._begin, 6)

    def emit(self, event, **fields):
        with self._lock:
            self.events.append({"event": event, **fields})

    def invoke(self, **fields):
        """The invocation of an operation; its id."""
        with self._lock:
            self._operations += 1
            self.events.append({"event": "op", "type": "invoke", "id": self._operations, **fields, "at": self.now()})
            return self._operations

    # --- Threads ---

    def __enter__(self):
        self._start(self._sample)
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60 * SLOW)

    def _start(self, target, *arguments, **options):
        def run():
            try:
                target(*arguments, **options)
            except Exception as error:  # for the thread that waits for us
                self._errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self):
        """Ends all clients; every write that was begun has an outcome afterwards, if only that it is unknown."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS + 30 * SLOW)
            assert not thread.is_alive(), "a client does not end"
        if self._errors:
            raise self._errors[0]

    @property
    def stopping(self):
        return self._stop.is_set()

    def pause(self, seconds):
        self._stop.wait(seconds)

    def write_and_read(self, process, replicas=0, pace_seconds=0.0):
        """A client that writes unique values through the primary, wherever it is, and reads anywhere with bookmarks."""
        self._start(Client(self, process, replicas, pace_seconds).run)

    def consume(self, slot):
        """A consumer of the change stream that follows the primary."""
        self._start(Consumer(self, slot).run)

    def wait_acked(self, more, timeout=60.0):
        self._wait(lambda: self.acked, more, "acknowledged writes", timeout)

    def wait_received(self, more, timeout=60.0):
        self._wait(lambda: self.received, more, "records of consumers", timeout)

    def _wait(self, count, more, what, timeout):
        target = count() + more

        def reached():
            if self._errors:
                raise self._errors[0]
            return count() >= target

        wait_until(reached, f"{target} {what}", timeout, describe=count)

    # --- Nodes ---

    def _sample(self):
        while not self.stopping:
            for node in self.nodes:
                if node.running and not node.paused:
                    self.sample(node)
            self.pause(self._sample_seconds)

    def sample(self, node):
        try:
            status = node.status()
        except (OSError, AssertionError):
            return
        before = self._samples.get(node.node_id)
        restarted = before is not None and status["uptime_seconds"] < before[0]
        if restarted:
            self._decisions.update(before[1])
        self._samples[node.node_id] = (status["uptime_seconds"], dict(status["resync"]["by_reason"]))
        slots = [{name: slot[name] for name in ("name", "kind", "origin", "generation", "state", "confirmed_lsn")}
                 for slot in status["slots"] if not slot["temporary"]]
        self.emit("status", node=node.node_id, at=self.now(), term=status["term"], first_lsn=status["wal"]["first_lsn"],
                  durable_lsn=status["wal"]["durable_lsn"], slots=slots, restarted=restarted)

    def did(self, node, what):
        """Something was done to a node; for people who read the history."""
        self.emit("node", node=node.node_id, what=what, at=self.now())

    def promotion(self, node, call):
        """Runs `call`, which promotes `node` and returns the PromotionReport, or raises."""
        start = self.now()
        try:
            report = call()
        except BaseException:
            self.emit("promotion", start=start, at=self.now(), ok=False, node=node.node_id, forced=False)
            raise
        self.emit("promotion", start=start, at=self.now(), ok=True, node=report.node_id, forced=report.forced,
                  term=report.term, term_id=hex_id(report.term_id), lsn=report.start_lsn)
        return report

    def last(self, event):
        """The newest event of that sort."""
        return next((each for each in reversed(self.events) if each["event"] == event), None)

    def justify(self, decision, count, why):
        """So many resyncs of this decision (full, rewind) have a reason."""
        self.emit("justify", decision=decision, count=count, why=why)

    def healed(self):
        self.emit("heal", at=self.now())

    def converged(self):
        self.emit("converged", at=self.now())

    # --- The end ---

    def finish(self, primary, replicas=None):
        """Records what the nodes hold in the end. No client runs any more."""
        replicas = [node for node in self.nodes if node is not primary and node.running] if replicas is None else replicas
        digest = self.test.assert_same_data(primary, *replicas)
        self.converged()
        for node in [primary, *replicas]:
            self.sample(node)
            self._dump(node)
            entries = {entry.key.decode(): [entry.value.decode(), entry.modified_lsn] for entry in node.client.scan()}
            self.emit("state", node=node.node_id, term=digest.position.term, lsn=digest.position.lsn, digest=digest.digest,
                      entries=entries)
        for _, decisions in self._samples.values():
            self._decisions.update(decisions)
        self.emit("resyncs", node=primary.node_id, decisions=dict(self._decisions))

    def _dump(self, node):
        status = node.status()
        end = status["wal"]["durable_lsn"]
        arguments = ("wal", "dump", "--data-dir", node.data_dir)
        lines = [json.loads(line) for line in towctl(*arguments, "--to", end).stdout.splitlines()]
        for line in lines:
            self.emit("log", node=node.node_id, **record_fields(line))
        # Its first LSN may have moved on between the two.
        first = max(lines[0]["lsn"], status["wal"]["first_lsn"]) if lines else end + 1
        self.emit("final", node=node.node_id, first_lsn=lines[0]["lsn"] if lines else first, durable_lsn=end)
        for line in towctl(*arguments, "--quarantine").stdout.splitlines():
            self.emit("quarantined", node=node.node_id, **record_fields(json.loads(line)))

    def save(self, path):
        with self._lock, open(path, "w", encoding="utf-8") as out:
            for event in self.events:
                out.write(json.dumps(event, separators=(",", ":")) + "\n")

    def check(self, primary, replicas=None):
        """finish(), then the checker, as a program and on what was saved."""
        self.finish(primary, replicas)
        path = self.test.directory / "history.jsonl"
        self.save(path)
        result = subprocess.run([sys.executable, "-B", SOURCE / "tests/history/checker.py", path], capture_output=True,
                                text=True, stdin=subprocess.DEVNULL, timeout=300 * SLOW)
        print(result.stdout.replace(str(path), "history").strip(), flush=True)
        self.test.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return model.History(self.events)

    def violations(self):
        return checks.check(model.History(self.events))


class Client:
    """One client: writes with request ids, again until the outcome is known, and reads that cover what it has seen."""

    def __init__(self, recorder, process, replicas, pace_seconds):
        self.recorder = recorder
        self.process = process
        self.replicas = replicas
        self.pace_seconds = pace_seconds
        self.random = random.Random(process)
        self.sequence = 0
        self.bookmark = None  # a types_pb2.Position
        self.target = 0       # index of the node that it takes for the primary
        self.clients = {}     # node -> (process, client)

    def run(self):
        while not self.recorder.stopping:
            if self.random.random() < 0.6:
                self._write()
            else:
                self._read()
            if self.pace_seconds:
                self.recorder.pause(self.pace_seconds)
        for _, client in self.clients.values():
            client.close()

    def _client(self, node):
        """A connection to the process that runs now: a new one has no backoff."""
        process, client = self.clients.get(node.node_id, (None, None))
        if process is not node.process:
            if client is not None:
                client.close()
            client = towline_client.Client(node.endpoint)
            self.clients[node.node_id] = (node.process, client)
        return client

    def _key(self):
        return f"{self.process}-{self.random.randrange(KEYS)}"

    # --- Writes ---

    def _write(self):
        self.sequence += 1
        key, value = self._key(), f"{self.process}:{self.sequence}"
        request = kv_service_pb2.WriteRequest(operations=[towline_client.put(key.encode(), value.encode())])
        request.request_id.client_id, request.request_id.sequence = self.process, self.sequence
        if self.replicas:
            request.durability.replicas = self.replicas
        operation = self.recorder.invoke(process=self.process, op="write", key=key, value=value,
                                         node=self.recorder.nodes[self.target].node_id,
                                         request=[self.process, self.sequence], replicas=self.replicas)
        deadline = time.monotonic() + PATIENCE_SECONDS
        unknown = False
        while time.monotonic() < deadline:
            node = self.recorder.nodes[self.target]
            try:
                response = self._client(node).kv.Write(request, timeout=5 * SLOW)
            except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed under it
                refused = self._refused(error, node)
                unknown = unknown or not refused
                self.recorder.pause(0.02)
                if self.recorder.stopping and time.monotonic() > deadline - PATIENCE_SECONDS / 2:
                    break
                continue
            self.bookmark = response.position
            self.recorder.acked += 1
            self.recorder.emit("op", type="ok", id=operation, node=node.node_id, duplicate=response.duplicate,
                               position=position_fields(response.position),
                               reached=response.achieved.reached if self.replicas else True, at=self.recorder.now())
            return
        self.recorder.emit("op", type="info" if unknown else "fail", id=operation, at=self.recorder.now())

    def _refused(self, error, node):
        """Goes to where the primary may be. True if the write has surely not been logged."""
        detail = towline_client.error_of(error) if isinstance(error, grpc.RpcError) else None
        if detail is None:
            self.target = (self.target + 1) % len(self.recorder.nodes)
            return False
        address = detail.metadata.get("primary_address", "")
        known = [i for i, each in enumerate(self.recorder.nodes) if each.endpoint == address]
        if known and known[0] != self.target:
            self.target = known[0]
        elif detail.reason != "replication_timeout":
            self.target = (self.target + 1) % len(self.recorder.nodes)
        return detail.metadata.get("outcome") == "not_logged" or detail.reason in NOT_LOGGED

    # --- Reads ---

    def _read(self):
        node = self.random.choice(self.recorder.nodes)
        key = self._key()
        request = kv_service_pb2.GetRequest(key=key.encode(), wait_ms=500)
        fields = None
        if self.bookmark is not None:
            request.min_position.CopyFrom(self.bookmark)
            fields = position_fields(self.bookmark)
        operation = self.recorder.invoke(process=self.process, op="read", node=node.node_id, key=key, bookmark=fields)
        try:
            response = self._client(node).kv.Get(request, timeout=5 * SLOW)
        except (grpc.RpcError, ValueError) as error:
            detail = towline_client.error_of(error) if isinstance(error, grpc.RpcError) else None
            reason = detail.reason if detail else "unavailable"
            if reason == "position_discarded":
                self.bookmark = None  # it has been told; what it has seen is gone
            self.recorder.emit("op", type="fail", id=operation, reason=reason, at=self.recorder.now())
            return
        entry = response.entry if response.HasField("entry") else None
        self.recorder.emit("op", type="ok", id=operation, node=node.node_id, value=entry.value.decode() if entry else None,
                           modified_lsn=entry.modified_lsn if entry else None, position=position_fields(response.position),
                           at=self.recorder.now())
        if response.position.lsn:
            self.bookmark = response.position
