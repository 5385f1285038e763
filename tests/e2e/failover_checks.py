"""What tests of promotions share: a cluster whose primary changes, under clients whose history is recorded and checked."""

import grpc
import harness
from harness import SLOW, NodeTest, wait_until
from recorder import Recorder
import towline_client  # the stubs are on the path once harness is imported
from towline.v1 import failover_service_pb2 as pb
from towline.v1 import failover_service_pb2_grpc as pb_grpc

TIMEOUT = 60 * SLOW

OPTIONS = {"wal.segment_bytes": "1MiB", "slots.persist_interval": "100ms", "start.peer_wait": "1s"}


class FailoverTest(NodeTest):
    def members(self, count=3):
        """A primary and replicas, all of which the primary counts: n1, n2, ..., and n1's slot for the consumer c1."""
        first = self.primary("n1", options=OPTIONS).start()
        nodes = [first, *(self.replica(f"n{i + 1}", first, options=OPTIONS).launch() for i in range(1, count))]
        for node in nodes[1:]:
            node.wait_state("streaming")
        self.wait_members(first, count)
        first.client.create_slot("c1")
        for node in nodes[1:]:
            node.wait_slot("c1", lambda slot: slot["origin"] == "n1", "a copy")
            self.wait_members(node, count)
        # Who comes back can rewind. With a snapshot from another replica it would be no member before a primary names
        # it again, and could not stand in for a primary that is dead.
        for node in nodes:
            node.wait(lambda status: status["rewind"]["checkpoint_lsns"], "its first rewind checkpoint")
        return nodes

    def recorder(self, nodes, replicated=2, local=0, consumers=1):
        recorder = Recorder(self, nodes)
        for i in range(replicated):
            recorder.write_and_read(f"w{i + 1}", replicas=1, pace_seconds=0.002 * i)
        for i in range(local):
            recorder.write_and_read(f"l{i + 1}", pace_seconds=0.002)
        if consumers:
            recorder.consume("c1")
        return recorder

    # --- Operators ---

    def try_promote(self, recorder, node):
        """The report, or None if it was refused. What is refused may have made promises."""
        def call():
            with grpc.insecure_channel(node.endpoint) as channel:
                return pb_grpc.FailoverServiceStub(channel).Promote(pb.PromoteRequest(), timeout=TIMEOUT).report

        try:
            return recorder.promotion(node, call)
        except grpc.RpcError as error:
            recorder.did(node, f"promotion refused: {towline_client.error_of(error) or error.details()}")
            return None

    def promote(self, recorder, node):
        """Promotes the node, which may take a few attempts while members come and go."""
        report = wait_until(lambda: self.try_promote(recorder, node), f"promotion of {node.node_id}", timeout=60,
                            interval=0.2, describe=lambda: recorder.last("node"))
        node.wait_state("writable")
        return report

    def promote_any(self, recorder, candidates):
        """Promotes one of them, and returns it: one that still has to go back to another's line is refused."""
        candidates = list(candidates)
        self.random.shuffle(candidates)
        promoted = wait_until(lambda: next((node for node in candidates if self.try_promote(recorder, node)), None),
                              "promotion of any node", timeout=60, interval=0.2, describe=lambda: recorder.last("node"))
        promoted.wait_state("writable")
        return promoted

    def switchover(self, recorder, node):
        def call():
            with grpc.insecure_channel(node.endpoint) as channel:
                response = pb_grpc.FailoverServiceStub(channel).Switchover(pb.SwitchoverRequest(), timeout=TIMEOUT)
            self.pauses.append(response.write_pause_us / 1000)
            return response.report

        report = recorder.promotion(node, call)
        node.wait_state("writable")
        return report

    def setUp(self):
        self.pauses = []  # of switchovers, in ms

    # --- Waits ---

    def wait_follows(self, primary, *nodes, timeout=60.0):
        """Waits until the nodes stream what `primary` writes."""
        term = primary.status()["term"]
        for node in nodes:
            node.wait(lambda status: status["state"] == "streaming" and status["history"][-1]["term"] >= term,
                      f"follows {primary.node_id} in term {term}", timeout)

    def wait_going_on(self, recorder, acked=40, received=40):
        recorder.wait_acked(acked)
        recorder.wait_received(received)

    def resyncs(self, node):
        """What has been decided there of replicas and consumers, but for partial resyncs."""
        resync = node.status()["resync"]
        return {key: count for decisions in (resync["by_reason"], resync["consumers_by_reason"])
                for key, count in decisions.items() if key.split("/")[0] in ("full", "rewind", "refuse")}

    def random_moment(self, seconds=0.3):
        """Waits a random time: here the time itself is the test."""
        harness.time.sleep(self.random.uniform(0, seconds))

    def check(self, recorder, primary):
        """Ends the clients and checks all of it. Every node runs."""
        recorder.healed()
        self.wait_going_on(recorder)
        recorder.stop()
        others = [node for node in recorder.nodes if node is not primary]
        self.wait_follows(primary, *others)
        return recorder.check(primary)
