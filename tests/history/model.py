"""A recorded history: its events, read and indexed for the checks. The format is described in README.md."""

import bisect
import collections
import json

COMPLETIONS = ("ok", "fail", "info")


class Violation(collections.namedtuple("Violation", "check message")):
    """What is wrong, with the id of the check that says so."""

    def __str__(self):
        return f"{self.check}: {self.message}"


class Operation:
    """A write or a read: its invocation and how it ended. Without an end its outcome is unknown, as with `info`."""

    def __init__(self, invoke):
        self.id = invoke["id"]
        self.process = invoke["process"]
        self.kind = invoke["op"]
        self.node = invoke.get("node")
        self.key = invoke["key"]
        self.value = invoke.get("value")  # of a write; of a read that ended, what was read
        self.request = tuple(invoke["request"]) if invoke.get("request") else None
        self.replicas = invoke.get("replicas", 0)  # level that was asked for
        self.bookmark = position_of(invoke.get("bookmark"))
        self.start = invoke["at"]
        self.outcome = "info"
        self.end = None
        self.position = None
        self.modified_lsn = None
        self.reached = None

    def complete(self, event):
        self.outcome = event["type"]
        self.end = event["at"]
        self.node = event.get("node", self.node)
        self.position = position_of(event.get("position"))
        self.modified_lsn = event.get("modified_lsn")
        self.reached = event.get("reached")
        if self.kind == "read":
            self.value = event.get("value")

    @property
    def ok(self):
        return self.outcome == "ok"

    @property
    def replicated(self):
        """Whether it was promised to survive the loss of the primary."""
        return self.ok and self.replicas > 0 and self.reached is not False

    def __str__(self):
        return f"{self.kind} {self.id} of {self.process} ({self.key}={self.value} at {self.position})"


class Position(collections.namedtuple("Position", "term term_id lsn")):
    def __str__(self):
        return f"{self.term}:{self.lsn}"


def position_of(fields):
    return Position(fields["term"], fields["term_id"], fields["lsn"]) if fields else None


class Record(collections.namedtuple("Record", "lsn term chain puts request")):
    """A record of a log. `puts` are the (key, value) that it writes, value None for a delete."""

    @property
    def place(self):
        return (self.term, self.lsn)


def record_of(event):
    return Record(event["lsn"], event["term"], event["chain"], tuple((key, value) for key, value in event["puts"]),
                  tuple(event["request"]) if event.get("request") else None)


class Session:
    """One stream of a consumer."""

    def __init__(self, event):
        self.process = event["process"]
        self.slot = event["slot"]
        self.node = event["node"]
        self.from_lsn = event["from_lsn"]
        self.records = []  # Record, in the order of arrival
        self.acks = []     # (LSN, records that had arrived)


class History:
    """All events of a run. `violations` holds what is no history at all, under the id FORMAT."""

    def __init__(self, events):
        self.operations = {}
        self.sessions = {}  # (process, session) -> Session, in the order of their start
        self.logs = collections.defaultdict(list)  # node -> [Record] in the order of the events
        self.quarantined = collections.defaultdict(list)
        self.states = []      # final states: events
        self.status = []      # samples in the order of time
        self.promotions = []  # in the order of time; those that failed have no position
        self.justified = collections.Counter()
        self.resyncs = collections.Counter()
        self.heals = []
        self.converged = []
        self.ends = {}  # node -> final event
        self.resent_bytes = 0
        self.resent_bytes_max = None
        self.liveness_seconds = None
        self.violations = []
        self.end = 0.0
        for event in events:
            self._take(event)
        self.timeline = self._final_timeline()
        self.by_lsn = {record.lsn: record for record in self.timeline}
        self.changes = collections.defaultdict(list)  # key -> [(LSN, value)]
        for record in self.timeline:
            for key, value in record.puts:
                self.changes[key].append((record.lsn, value))

    # --- Reading ---

    def _bad(self, message):
        self.violations.append(Violation("FORMAT", message))

    def _take(self, event):
        self.end = max(self.end, event.get("at", 0.0))
        handler = getattr(self, "_on_" + event["event"], None)
        if handler is None:
            self._bad(f"unknown event {event['event']}")
        else:
            handler(event)

    def _on_run(self, event):
        self.liveness_seconds = event.get("liveness_seconds")
        self.resent_bytes_max = event.get("resent_bytes_max")

    def _on_op(self, event):
        if event["type"] == "invoke":
            if event["id"] in self.operations:
                self._bad(f"operation {event['id']} is invoked twice")
            self.operations[event["id"]] = Operation(event)
            return
        operation = self.operations.get(event["id"])
        if event["type"] not in COMPLETIONS or operation is None or operation.end is not None:
            self._bad(f"operation {event['id']}: {event['type']} without an invocation, or after its end")
        elif event["at"] < operation.start:
            self._bad(f"operation {event['id']} ends before it begins")
        else:
            operation.complete(event)

    def _on_stream(self, event):
        key = (event["process"], event["session"])
        if key in self.sessions:
            self._bad(f"session {key} begins twice")
        self.sessions[key] = Session(event)

    def _on_streamed(self, event):
        session = self.sessions.get((event["process"], event["session"]))
        if session is None:
            self._bad(f"a record of {event['process']} arrives without a session")
        else:
            session.records.append(record_of(event))

    def _on_ack(self, event):
        session = self.sessions.get((event["process"], event["session"]))
        if session is None:
            self._bad(f"an ack of {event['process']} without a session")
        else:
            session.acks.append((event["lsn"], len(session.records)))

    def _on_status(self, event):
        self.status.append(event)

    def _on_promotion(self, event):
        self.promotions.append(event)

    def _on_justify(self, event):
        self.justified[event["decision"]] += event["count"]

    def _on_resyncs(self, event):
        self.resyncs.update(event["decisions"])
        self.resent_bytes += event.get("resent_bytes", 0)

    def _on_heal(self, event):
        self.heals.append(event["at"])

    def _on_converged(self, event):
        self.converged.append(event["at"])

    def _on_node(self, event):
        """For people: what was done to a node."""

    def _on_log(self, event):
        self.logs[event["node"]].append(record_of(event))

    def _on_quarantined(self, event):
        self.quarantined[event["node"]].append(record_of(event))

    def _on_state(self, event):
        self.states.append(event)

    def _on_final(self, event):
        self.ends[event["node"]] = event

    # --- What follows from it ---

    def _final_timeline(self):
        """The log of the node that ends in the highest (term, LSN), with what others hold of it from before."""
        logs = [sorted(log, key=lambda record: record.lsn) for log in self.logs.values() if log]
        if not logs:
            return []
        newest = max(logs, key=lambda log: log[-1].place)
        for log in logs:
            if log[0].lsn < newest[0].lsn and log[-1].lsn >= newest[0].lsn - 1:
                newest = [record for record in log if record.lsn < newest[0].lsn] + newest
        return newest

    @property
    def writes(self):
        return [operation for operation in self.operations.values() if operation.kind == "write"]

    @property
    def reads(self):
        return [operation for operation in self.operations.values() if operation.kind == "read"]

    def value_at(self, key, lsn):
        """(LSN, value) of the last change of the key up to an LSN of the final timeline; (0, None) if there is none."""
        changes = self.changes.get(key, [])
        index = bisect.bisect_right(changes, lsn, key=lambda change: change[0])
        return changes[index - 1] if index else (0, None)

    def is_final(self, position):
        """Whether a position lies on the final timeline. Only its term says of which line a position is."""
        record = self.by_lsn.get(position.lsn)
        return record is not None and record.term == position.term

    def begins_at_one(self):
        return bool(self.timeline) and self.timeline[0].lsn == 1


def load(path):
    """The events of a file, one JSON object a line."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]
