"""What tests of promotions share: a cluster whose primary changes, under clients whose history is recorded and checked."""

import json

import harness
from harness import NodeTest, wait_until
from recorder import Recorder

OPTIONS = {"wal.segment_bytes": "1MiB", "slots.persist_interval": "100ms", "start.peer_wait": "1s"}


class FailoverTest(NodeTest):
    def members(self, count=3):
        """A primary and replicas, all of which the primary counts: n1, n2, ..., and n1's slot for the consumer c1."""
        first = self.primary("n1", options=OPTIONS).start()
        nodes = [first, *(self.replica(f"n{i + 1}", first, options=OPTIONS).launch() for i in range(1, count))]
        for node in nodes[1:]:
            node.wait_state("streaming")
        first.wait(lambda status: len(status["members"]) == count, "members")
        first.client.create_slot("c1")
        for node in nodes[1:]:
            node.wait_slot("c1", lambda slot: slot["origin"] == "n1", "a copy")
            node.wait(lambda status: len(status["members"]) == count, "members")
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

    def try_promote(self, recorder, node, *arguments):
        """The report, or None if it was refused. What is refused may have made promises."""
        def call():
            result = node.towctl("promote", node.node_id, *arguments, "-o", "json", check=False)
            if result.returncode != 0:
                raise Refused(result.stderr)
            return json.loads(result.stdout)

        try:
            return recorder.promotion(node, call)
        except Refused as refused:
            recorder.did(node, f"promotion refused: {refused}")
            return None

    def promote(self, recorder, node, *arguments):
        """Promotes the node, which may take a few attempts while members come and go."""
        report = wait_until(lambda: self.try_promote(recorder, node, *arguments), f"promotion of {node.node_id}", timeout=60,
                            interval=0.2, describe=lambda: recorder.events[-1])
        node.wait_state("writable")
        return report

    def switchover(self, recorder, node):
        def call():
            result = json.loads(node.towctl("switchover", "--to", node.node_id, "-o", "json").stdout)
            self.pauses.append(result["write_pause_us"] / 1000)
            return result["report"]

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

    def assert_only_partial(self, primary, *what):
        resync = primary.status()["resync"]
        self.assertEqual((resync["full_total"], resync["rewind_total"]), (0, 0), (what, resync))
        refused = {key: count for key, count in resync["consumers_by_reason"].items() if not key.startswith("partial/")}
        self.assertEqual(refused, {}, resync)

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


class Refused(Exception):
    pass
