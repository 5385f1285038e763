"""A consumer whose sessions are recorded: see recorder.py."""

import grpc
import towline_client  # the stubs are on the path once harness is imported

ACK_EVERY = 16  # records


def puts_of(change):
    puts = []
    for operation in change.batch.operations:
        kind = operation.WhichOneof("kind")
        if kind == "put":
            puts.append([operation.put.key.decode(), operation.put.value.decode()])
        elif kind == "delete":
            puts.append([operation.delete.key.decode(), None])
    return puts


def fields_of(record):
    request = record.change.batch.request_id if record.change.batch.HasField("request_id") else None
    return {"lsn": record.lsn, "term": record.term, "chain": f"{record.chain:016x}", "puts": puts_of(record.change),
            "request": [request.client_id, request.sequence] if request and request.client_id else None}


class Consumer:
    """Goes on from its slot, at whichever node is the primary, session after session."""

    def __init__(self, recorder, slot):
        self.recorder = recorder
        self.slot = slot
        self.sessions = 0
        self.received_lsn = 0
        self.process_instance = towline_client.new_process_instance()

    def run(self):
        while not self.recorder.stopping:
            for node in self.recorder.nodes:
                if node.running and not node.paused and not self.recorder.stopping:
                    self._try(node)
            self.recorder.pause(0.02)

    def _try(self, node):
        client = towline_client.Client(node.endpoint)
        try:
            if self._is_primary(node):
                self._session(client, node)
        except (grpc.RpcError, towline_client.TowlineError):
            pass  # the node is away, or is no primary any more
        finally:
            client.close()

    @staticmethod
    def _is_primary(node):
        try:
            status = node.status()
        except (OSError, AssertionError):
            return False
        return status["role"] == "primary" and status["state"] == "writable"

    def _session(self, client, node):
        with client.follow(self.slot, process_instance=self.process_instance) as follower:
            self.sessions += 1
            session = {"process": self.slot, "session": self.sessions}
            self.recorder.emit("stream", **session, slot=self.slot, node=node.node_id, from_lsn=follower.started.from_lsn,
                               reason=follower.started.reason, at=self.recorder.now())
            unacked = 0
            for records in follower.batches():
                for record in records:
                    self.recorder.emit("streamed", **session, **fields_of(record))
                    self.recorder.received += 1
                    self.received_lsn = record.lsn
                unacked += len(records)
                if unacked >= ACK_EVERY or (unacked and not records):
                    self._ack(follower, session)
                    unacked = 0
                if self.recorder.stopping:
                    return

    def _ack(self, follower, session):
        lsn = self.received_lsn
        self.recorder.emit("ack", **session, lsn=lsn, at=self.recorder.now())  # before it can take effect
        follower.ack(lsn)
