#!/usr/bin/python3
"""Recorded histories of clients hold while nodes are killed and started again; and the recorder records what the checker
needs, which sees what is wrong in them."""

import copy

import harness
from harness import NodeTest, repetitions
from recorder import Recorder

OPTIONS = {"wal.segment_bytes": "1MiB", "slots.persist_interval": "100ms"}


class HistoryTest(NodeTest):
    def record(self, faults):
        nodes = self.cluster(replicas=2, primary_options=OPTIONS, replica_options=OPTIONS)
        nodes[0].client.create_slot("c1")
        with Recorder(self, nodes) as recorder:
            recorder.write_and_read("w1")
            recorder.write_and_read("w2", pace_seconds=0.002)
            recorder.consume("c1")
            faults(recorder, nodes)
            recorder.healed()
            recorder.wait_acked(100)
            recorder.wait_received(100)
            recorder.stop()
        history = recorder.check(nodes[0])
        self.assertGreater(sum(write.ok for write in history.writes), 100)
        self.assertGreater(sum(read.ok for read in history.reads), 50)
        self.assertGreater(sum(len(session.records) for session in history.sessions.values()), 100)
        self.assertTrue(history.begins_at_one())
        return recorder

    def kill(self, recorder, node):
        recorder.wait_acked(50)
        harness.time.sleep(self.random.uniform(0, 0.2))  # the time itself is the test
        recorder.did(node, "kill")
        node.kill9()
        node.start()
        recorder.did(node, "start")

    def test_the_primary_is_killed(self):
        def faults(recorder, nodes):
            for _ in range(repetitions(3)):
                self.kill(recorder, nodes[0])
                for node in nodes[1:]:
                    node.wait_state("streaming")

        recorder = self.record(faults)
        unknown = [each for each in recorder.events if each["event"] == "op" and each["type"] == "ok" and each.get("duplicate")]
        print(f"{len(unknown)} writes were acknowledged when they were asked again", flush=True)

    def test_any_node_is_killed(self):
        def faults(recorder, nodes):
            for _ in range(repetitions(4)):
                self.kill(recorder, self.random.choice(nodes))

        self.record(faults)

    def test_the_checker_sees_what_is_wrong_with_a_recorded_history(self):
        recorder = self.record(lambda recorder, nodes: recorder.wait_acked(100))
        good = recorder.events
        self.assertEqual(recorder.violations(), [])

        def flagged(check, change):
            recorder.events = copy.deepcopy(good)
            change(recorder.events)
            self.assertIn(check, {violation.check for violation in recorder.violations()})

        def pick(events, **fields):
            found = [each for each in events if all(each.get(name) == value for name, value in fields.items())]
            return found[len(found) // 2]

        def drop(**fields):
            return lambda events: events.remove(pick(events, **fields))

        def change(name, value, **fields):
            return lambda events: pick(events, **fields).update({name: value})

        writes = [each["id"] for each in good if each.get("op") == "write"]
        acked = next(each["id"] for each in good if each.get("type") == "ok" and each["id"] in writes)
        flagged("C1", change("position", {"term": 1, "term_id": "0", "lsn": 10 ** 6}, event="op", type="ok", id=acked))
        flagged("C2", drop(event="op", type="invoke", id=acked))
        flagged("C3", drop(event="log", node="r1"))
        flagged("C6", drop(event="streamed"))
        flagged("C7", change("entries", {}, event="state", node="r2"))
        flagged("C9", change("value", None, event="op", type="ok", id=next(
            each["id"] for each in good if each.get("type") == "ok" and each.get("value"))))
        flagged("C12", change("term", 7, event="status", node="r1"))


if __name__ == "__main__":
    harness.main()
