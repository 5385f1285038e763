#!/usr/bin/python3
"""Commit levels: what a write waits for, what it is told when that does not come, and flow control."""

import threading

import grpc
import harness
from harness import SLOW, NodeTest, wait_until
import towline_client
from towline.v1 import admin_service_pb2, kv_service_pb2
from towline_client import put

FAIL = kv_service_pb2.ON_COMMIT_TIMEOUT_FAIL
ACCEPT = kv_service_pb2.ON_COMMIT_TIMEOUT_ACCEPT
FLUSHED = kv_service_pb2.COMMIT_STAGE_FLUSHED
APPLIED = kv_service_pb2.COMMIT_STAGE_APPLIED


def level(replicas, stage=FLUSHED, timeout=20.0, on_timeout=FAIL):
    return kv_service_pb2.Durability(replicas=replicas, stage=stage, timeout_ms=int(timeout * 1000),
                                     on_timeout=on_timeout)


def write(node, key, durability=None, client_id="", sequence=0):
    """The answer; towline_client.TowlineError if there is none."""
    request = kv_service_pb2.WriteRequest(operations=[put(key, b"v" * 100)], durability=durability)
    if client_id:
        request.request_id.client_id = client_id
        request.request_id.sequence = sequence
    try:
        return node.client.kv.Write(request, timeout=60 * SLOW)
    except grpc.RpcError as error:
        towline_client.raise_towline_error(error)


class CommitLevelsTest(NodeTest):
    def synced_cluster(self, replicas=2, **arguments):
        nodes = self.cluster(replicas, **arguments)
        self.wait_acking(nodes[0], replicas)
        return nodes

    def wait_acking(self, primary, count):
        primary.wait(lambda status: status["commit"]["acking_members"] == count, f"{count} members acknowledge")

    def assert_refused(self, reason, outcome, call, *arguments, **named):
        with self.assertRaises(towline_client.TowlineError) as raised:
            call(*arguments, **named)
        self.assertEqual(raised.exception.reason, reason)
        self.assertEqual(raised.exception.metadata["outcome"], outcome)
        return raised.exception

    def test_levels(self):
        p1, r1, r2 = self.synced_cluster()
        answer = write(p1, b"local", level(0))
        self.assertTrue(answer.achieved.reached)
        self.assertEqual(answer.committed_lsn, answer.position.lsn)
        for replicas in (1, 2):
            for stage in (FLUSHED, APPLIED):
                answer = write(p1, b"k", level(replicas, stage))
                self.assertTrue(answer.achieved.reached)
                self.assertGreaterEqual(answer.achieved.replicas_flushed, replicas)
                if stage == APPLIED:
                    self.assertGreaterEqual(answer.achieved.replicas_applied, replicas)
        for node in (r1, r2):  # two of two have applied it
            self.assertGreaterEqual(node.status()["store"]["applied_lsn"], answer.position.lsn)

        self.assert_refused("too_few_replicas", "not_logged", write, p1, b"k", level(3))
        lsn = p1.status()["wal"]["durable_lsn"]
        self.assertEqual(lsn, answer.position.lsn)
        too_long = level(1)
        too_long.timeout_ms = 600001
        self.assert_refused("invalid_durability", "not_logged", write, p1, b"k", too_long)
        with self.assertRaises(towline_client.TowlineError) as raised:
            write(r1, b"k", level(0))
        self.assertEqual(raised.exception.metadata["outcome"], "not_logged")

        text = p1.towctl("put", "a", "1", "--replicas", "2", "--applied").stdout
        self.assertIn("2 replicas flushed, 2 applied", text)
        self.assertEqual(p1.towctl("put", "a", "1", "--accept", check=False).returncode, 2)
        self.assertIn("commit    default 0 flushed", p1.towctl("status").stdout)

    def write_at_default_level(self, primary, key):
        """The timeout is short, so that others expire soon: on a slow disk the first answers may come too late."""
        def answer():
            try:
                return write(primary, key)
            except towline_client.TowlineError as error:
                self.assertEqual(error.reason, "replication_timeout")
                return None

        return wait_until(answer, "the default level is reached")

    def test_timeouts(self):
        p1, r1, r2 = self.synced_cluster(primary_options={"durability.replicas": "2", "durability.timeout": "300ms"})
        self.write_at_default_level(p1, b"warm")
        r2.pause()
        # Long enough for the answer of the other one, on a slow disk too.
        error = self.assert_refused("replication_timeout", "durable_here", write, p1, b"k", level(2, timeout=2.0))
        self.assertEqual(error.code, grpc.StatusCode.DEADLINE_EXCEEDED)
        lsn = int(error.metadata["lsn"])
        self.assertEqual(p1.client.get(b"k"), b"v" * 100)  # it has taken effect here
        self.assertEqual(p1.status()["wal"]["durable_lsn"], lsn)
        self.assertEqual(error.metadata["replicas_flushed"], "1")
        self.assertEqual(error.metadata["term"], "1")
        self.assert_refused("replication_timeout", "durable_here", write, p1, b"default")
        self.assertTrue(write(p1, b"k", level(1)).achieved.reached)

        accepted = write(p1, b"k2", level(2, timeout=2.0, on_timeout=ACCEPT))
        self.assertFalse(accepted.achieved.reached)
        self.assertEqual(accepted.achieved.replicas_flushed, 1)
        self.assertLess(accepted.committed_lsn, accepted.position.lsn)
        commit = p1.status()["commit"]
        self.assertTrue(commit["degraded"])
        self.assertEqual(commit["degraded_first_lsn"], accepted.position.lsn)
        self.assertGreater(commit["exposed_bytes"], 0)
        self.assertGreaterEqual(commit["timeouts_total"], 3)
        p1.wait(lambda status: status["commit"]["exposed_seconds"] > 0.1, "exposure gets older")
        metrics = p1.metrics()
        self.assertEqual(metrics["towline_commit_degraded"], 1)
        self.assertEqual(metrics["towline_commit_degraded_records_total"], 1)
        self.assertGreater(metrics["towline_commit_exposed_bytes"], 0)

        r2.resume()
        p1.wait(lambda status: not status["commit"]["degraded"], "the episode ends")
        p1.wait(lambda status: status["commit"]["exposed_bytes"] == 0, "nothing is exposed")
        self.assertTrue(self.write_at_default_level(p1, b"k3").achieved.reached)
        log = p1.log()
        self.assertEqual((log.count("commit_degraded"), log.count("commit_restored")), (1, 1))

    def test_a_retry_waits_for_its_level(self):
        p1, r1 = self.synced_cluster(1)
        r1.pause()
        error = self.assert_refused("replication_timeout", "durable_here", write, p1, b"k", level(1, timeout=0.2), "c", 1)
        again = self.assert_refused("replication_timeout", "durable_here", write, p1, b"k", level(1, timeout=0.2), "c", 1)
        self.assertEqual(again.metadata["lsn"], error.metadata["lsn"])
        self.assertEqual(again.metadata["chain"], error.metadata["chain"])
        local = write(p1, b"k", level(0), "c", 1)
        self.assertTrue(local.duplicate)
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(write(p1, b"k", level(1), "c", 1)))
        waiting.start()
        p1.wait(lambda status: status["commit"]["waiters"] == 1, "the retry waits")
        r1.resume()
        waiting.join(60 * SLOW)
        self.assertTrue(answers[0].duplicate)
        self.assertTrue(answers[0].achieved.reached)
        self.assertEqual(answers[0].position.lsn, int(error.metadata["lsn"]))

        # Also after a restart: acks count anew.
        p1.kill9()
        p1.start()
        self.wait_acking(p1, 1)
        after = write(p1, b"k", level(1), "c", 1)
        self.assertTrue(after.duplicate and after.achieved.reached)
        self.assertEqual(after.position.lsn, int(error.metadata["lsn"]))

    def test_min_replicas_at_run_time(self):
        p1, r1, r2 = self.synced_cluster()
        self.assertEqual(p1.status()["min_replicas"], 0)
        self.assertIn("Members record", p1.towctl("member", "min-replicas", "1").stdout)
        self.assertIn("as before", p1.towctl("member", "min-replicas", "1").stdout)
        self.assertIn("min_replicas 1", p1.towctl("member", "list").stdout)
        self.assert_refused("below_min_replicas", "not_logged", write, p1, b"k", level(0))
        self.assertGreaterEqual(write(p1, b"k").achieved.replicas_flushed, 1)
        r1.wait(lambda status: status["min_replicas"] == 1, "the replicas know")
        too_many = p1.towctl("member", "set-min-replicas", "3", check=False)
        self.assertIn("too_few_replicas", too_many.stderr)
        with self.assertRaises(grpc.RpcError):
            r1.admin.SetMinReplicas(admin_service_pb2.SetMinReplicasRequest(min_replicas=0), timeout=30 * SLOW)

        r2.stop()
        p1.wait(lambda status: status["commit"]["acking_members"] == 1, "r2 is gone")
        p1.towctl("member", "min-replicas", "2")
        self.assert_refused("replication_timeout", "durable_here", write, p1, b"k", level(2, timeout=0.2))
        guarded = p1.towctl("member", "remove", "r2", check=False)
        self.assertIn("min_replicas_unreachable", guarded.stderr)
        # Lowered, it holds once those who could promote one of them without it know of it.
        wait_until(lambda: p1.metrics()["towline_commit_pending_members_records"] == 0, "r1 knows of the last change")
        r1.pause()
        p1.towctl("member", "min-replicas", "0")
        self.assert_refused("below_min_replicas", "not_logged", write, p1, b"k", level(0))
        self.assertEqual(p1.metrics()["towline_commit_pending_members_records"], 1)
        r1.resume()
        wait_until(lambda: p1.metrics()["towline_commit_min_replicas"] == 0, "the lower level holds")
        self.assertTrue(write(p1, b"k", level(0)).achieved.reached)

        r2.start()
        p1.towctl("member", "min-replicas", "1")
        p1.kill9()
        p1.start()
        self.assertEqual(p1.status()["min_replicas"], 1)
        self.assert_refused("below_min_replicas", "not_logged", write, p1, b"k", level(0))

    def test_committed_lsn(self):
        p1, r1, r2 = self.synced_cluster(primary_options={"durability.replicas": "1"})
        lsn = write(p1, b"k").position.lsn
        for node in (p1, r1, r2):
            node.wait(lambda status: status["wal"]["committed_lsn"] >= lsn, "committed everywhere")
        r1.pause()
        r2.pause()
        behind = write(p1, b"k", level(0))
        self.assertLess(behind.committed_lsn, behind.position.lsn)
        self.assertLess(p1.status()["wal"]["committed_lsn"], behind.position.lsn)
        r1.resume()
        p1.wait(lambda status: status["wal"]["committed_lsn"] >= behind.position.lsn, "one holds it")
        r2.resume()

    def test_stream(self):
        p1, r1 = self.synced_cluster(1)

        def stream(*messages):
            """Answers, merged: (last acked, refused, degraded ranges)."""
            acked, refused, degraded = 0, [], []
            for answer in p1.client.kv.WriteStream(iter(messages), timeout=60 * SLOW):
                self.assertGreaterEqual(answer.acked_sequence, acked)
                acked = answer.acked_sequence
                refused += answer.refused
                degraded += [(d.first_sequence, d.last_sequence) for d in answer.degraded]
            return acked, refused, degraded

        def message(first, count, durability):
            elements = [kv_service_pb2.WriteRequest(operations=[put(b"s%d" % i, b"v")]) for i in range(count)]
            return kv_service_pb2.WriteStreamRequest(first_sequence=first, elements=elements, durability=durability)

        self.assertEqual(stream(message(1, 10, level(1)), message(11, 10, level(0))), (20, [], []))
        own = message(1, 2, level(1))
        own.elements[1].durability.replicas = 1
        acked, refused, _ = stream(own)
        self.assertEqual((acked, [(r.sequence, r.error.reason) for r in refused]), (2, [(2, "invalid_durability")]))
        acked, refused, _ = stream(message(1, 2, level(2)))
        self.assertEqual([(r.error.reason, r.error.metadata["outcome"]) for r in refused],
                         2 * [("too_few_replicas", "not_logged")])

        r1.pause()
        # The second message is done first, and answered behind the first.
        acked, refused, degraded = stream(message(1, 5, level(1, timeout=0.4, on_timeout=ACCEPT)),
                                          message(6, 5, level(0)),
                                          message(11, 2, level(1, timeout=0.2)))
        self.assertEqual((acked, degraded), (12, [(1, 5)]))
        self.assertEqual([(r.sequence, r.error.reason, r.error.metadata["outcome"]) for r in refused],
                         [(11, "replication_timeout", "durable_here"), (12, "replication_timeout", "durable_here")])
        self.assertTrue(p1.client.get(b"s1"))
        r1.resume()

    def test_flow_control(self):
        p1, r1 = self.synced_cluster(1, primary_options={"flow.max_lag_bytes": "64KiB", "flow.refuse_after": "500ms"})
        self.assertEqual(p1.status()["commit"]["flow"], "open")
        r1.pause()
        write(p1, b"k")
        filler = kv_service_pb2.WriteRequest(operations=[put(b"f", bytes(100_000))])
        p1.client.kv.Write(filler, timeout=60 * SLOW)
        p1.wait(lambda status: status["commit"]["flow"] != "open", "writes are slowed down")
        p1.wait(lambda status: status["commit"]["flow"] == "refused", "then refused")
        self.assertGreater(p1.status()["commit"]["flow_lag_bytes"], 64 << 10)
        error = self.assert_refused("replicas_behind", "not_logged", write, p1, b"k")
        self.assertEqual(error.code, grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertEqual(p1.metrics()['towline_flow_state{state="refused"}'], 1)
        r1.resume()
        p1.wait(lambda status: status["commit"]["flow"] == "open", "open again")
        write(p1, b"k")


if __name__ == "__main__":
    harness.main()
