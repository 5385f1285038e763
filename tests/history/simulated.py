"""Good histories made up from a seed: a cluster of three that loses its primary now and then. For the self-test."""

import random

NODES = ("n1", "n2", "n3")
KEYS = tuple(f"k{i}" for i in range(5))


class Cluster:
    """Writes events as a recorder would. Every node holds a prefix of the primary's log, or what is left of an older
    line, which it gives up when it follows the new primary."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.events = [{"event": "run", "liveness_seconds": 5.0, "resent_bytes_max": 0}]
        self.now = 0.0
        self.term, self.term_id = 1, "id1"
        self.primary = "n1"
        self.logs = {node: [] for node in NODES}
        self.operations = 0
        self.values = 0
        self.chains = 0
        self.bookmarks = {}
        self.sessions = 0
        self.acked = {}
        self.quarantined = 0
        self._append([], None)

    # --- Steps ---

    def run(self, steps):
        for step in range(steps):
            chosen = self.random.random()
            if chosen < 0.45:
                self._write()
            elif chosen < 0.7:
                self._read()
            elif chosen < 0.8:
                self._stream()
            elif chosen < 0.92:
                self._status(self.random.choice(NODES))
            elif chosen < 0.95 and step > 10:
                self._fail_over()
        self._finish()
        return self.events

    def _tick(self):
        self.now = round(self.now + self.random.uniform(0.001, 0.05), 6)
        return self.now

    def _emit(self, event, **fields):
        self.events.append({"event": event, **fields})

    def _append(self, puts, request):
        self.chains += 1
        log = self.logs[self.primary]
        log.append({"lsn": len(log) + 1, "term": self.term, "chain": f"{self.chains:x}", "puts": puts, "request": request})
        return self._position(len(log))

    def _position(self, lsn, node=None):
        record = self.logs[node or self.primary][lsn - 1]
        return {"term": record["term"], "term_id": f"id{record['term']}", "lsn": lsn}

    def _replicate(self, node, lsn):
        """The node takes over what the primary holds up to `lsn`."""
        if node != self.primary:
            mine, theirs = self.logs[node], self.logs[self.primary]
            mine.extend(theirs[len(mine):lsn])

    def _followers(self):
        return [node for node in NODES if node != self.primary]

    def _write(self):
        process = self.random.choice(("w1", "w2"))
        self.values += 1
        self.operations += 1
        key, value = self.random.choice(KEYS), f"v{self.values}"
        replicas = self.random.choice((0, 1))
        request = [process, self.values]
        invoke = {"type": "invoke", "id": self.operations, "process": process, "op": "write", "node": self.primary,
                  "key": key, "value": value, "request": request, "replicas": replicas}
        self._emit("op", **invoke, at=self._tick())
        chosen = self.random.random()
        if chosen < 0.1:
            self._emit("op", type="fail", id=self.operations, at=self._tick())
            return
        if chosen < 0.15:  # unknown, and never arrived
            self._emit("op", type="info", id=self.operations, at=self._tick())
            return
        position = self._append([[key, value]], request)
        if replicas or self.random.random() < 0.5:
            self._replicate(self.random.choice(self._followers()), position["lsn"])
        if chosen < 0.25:  # unknown, but there; perhaps asked again
            self._emit("op", type="info", id=self.operations, at=self._tick())
            if self.random.random() < 0.5:
                return
            self.operations += 1
            self._emit("op", **{**invoke, "id": self.operations}, at=self._tick())
        self._emit("op", type="ok", id=self.operations, node=self.primary, position=position, reached=True, at=self._tick())
        self.bookmarks[process] = position

    def _read(self):
        process, node = self.random.choice(("w1", "w2")), self.random.choice(NODES)
        self.operations += 1
        bookmark = self.bookmarks.get(process)
        key = self.random.choice(KEYS)
        self._emit("op", type="invoke", id=self.operations, process=process, op="read", node=node, key=key,
                   bookmark=bookmark, at=self._tick())
        log = self.logs[node]
        if bookmark is not None and len(log) < bookmark["lsn"]:
            self._emit("op", type="fail", id=self.operations, at=self._tick())
            return
        changes = [(record["lsn"], value) for record in log for name, value in record["puts"] if name == key]
        lsn, value = changes[-1] if changes else (None, None)
        position = self._position(len(log), node) if log else None
        self._emit("op", type="ok", id=self.operations, node=node, value=value, modified_lsn=lsn, position=position,
                   at=self._tick())
        if position is not None and bookmark is not None:
            self.bookmarks[process] = position

    def _stream(self):
        """A session of the one consumer, on the primary; what it is sent is on replicas, too."""
        self.sessions += 1
        log = self.logs[self.primary]
        begin = self.acked.get("c1", 0) + 1
        count = self.random.randint(0, 12)
        end = min(len(log), begin - 1 + count)
        for node in NODES:
            self._replicate(node, end)
        session = {"process": "c1", "session": self.sessions}
        self._emit("stream", **session, slot="c1", node=self.primary, from_lsn=begin, at=self._tick())
        for record in log[begin - 1:end]:
            self._emit("streamed", **session, **record, at=self._tick())
        if end >= begin:
            self.acked["c1"] = end
            self._emit("ack", **session, lsn=end, at=self._tick())

    def _status(self, node):
        log = self.logs[node]
        followers = self._followers() if node == self.primary else []
        slots = [{"name": each, "kind": "replica", "origin": "", "generation": f"{each}-{self.term}", "state": "active",
                  "confirmed_lsn": len(self.logs[each])} for each in followers]
        self._emit("status", node=node, at=self._tick(), term=max(self.term, log[-1]["term"] if log else 0), first_lsn=1,
                   durable_lsn=len(log), slots=slots)

    def _fail_over(self):
        """The primary dies; the follower that holds most takes over, and the others follow it."""
        start = self._tick()
        self._emit("node", node=self.primary, what="kill", at=start)
        old = self.primary
        self.primary = max(self._followers(), key=lambda node: len(self.logs[node]))
        fork = len(self.logs[self.primary])
        self.term += 1
        position = self._append([], None)
        self._emit("promotion", start=start, at=self._tick(), ok=True, node=self.primary, forced=False, **position)
        lost = self.logs[old][fork:]
        for record in lost:
            self._emit("quarantined", node=old, **record)
        if lost:
            self.quarantined += 1
            self.logs[old] = self.logs[old][:fork]
        for node in NODES:
            self._replicate(node, len(self.logs[self.primary]))
        for process, bookmark in list(self.bookmarks.items()):
            if bookmark["lsn"] > fork:
                del self.bookmarks[process]  # its next read was refused: position_discarded
        self._emit("heal", at=self._tick())
        self._write_ok()
        for node in NODES:
            self._status(node)
        self._emit("converged", at=self._tick())

    def _write_ok(self):
        """One write that surely succeeds."""
        self.values += 1
        self.operations += 1
        key, value, request = KEYS[0], f"v{self.values}", ["w1", self.values]
        self._emit("op", type="invoke", id=self.operations, process="w1", op="write", node=self.primary, key=key,
                   value=value, request=request, replicas=1, at=self._tick())
        position = self._append([[key, value]], request)
        for node in NODES:
            self._replicate(node, position["lsn"])
        self._emit("op", type="ok", id=self.operations, node=self.primary, position=position, reached=True, at=self._tick())

    def _finish(self):
        self._write_ok()
        end = len(self.logs[self.primary])
        for node in NODES:
            self._replicate(node, end)
            self._status(node)
        state = {}
        for record in self.logs[self.primary]:
            for key, value in record["puts"]:
                state[key] = [value, record["lsn"]]
        for node in NODES:
            for record in self.logs[node]:
                self._emit("log", node=node, **record)
            self._emit("final", node=node, first_lsn=1, durable_lsn=end)
            self._emit("state", node=node, term=self.term, lsn=end, digest=f"digest-{end}", entries=dict(state))
        if self.quarantined:
            self._emit("justify", decision="rewind", count=self.quarantined, why="an old primary came back")
        self._emit("resyncs", node=self.primary, decisions={"rewind/diverged": self.quarantined} if self.quarantined else {},
                   resent_bytes=0)


def good_history(seed, steps=120):
    return Cluster(seed).run(steps)
