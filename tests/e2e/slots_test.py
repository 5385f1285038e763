#!/usr/bin/python3
"""Slots as an operator handles them: temporary, copied, advanced, dropped, diverged, lost."""

import subprocess

import grpc
import harness
import towline_client
from harness import NodeTest, wait_until
from towline.v1 import replication_service_pb2 as replication_pb2
from towline.v1 import replication_service_pb2_grpc as replication_pb2_grpc
from towline.v1 import slot_service_pb2, types_pb2
from workload import fill

SMALL_LOG = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "store.flush_bytes": "2MiB",
             "store.flush_interval": "1s", "slots.persist_interval": "50ms"}


class SlotsTest(NodeTest):
    def refused(self, node, code, reason, *arguments):
        result = node.towctl(*arguments, check=False)
        self.assertEqual((result.returncode, result.stderr.split(": ")[1]), (code, reason), result.stderr)
        return result.stderr

    def assert_metric(self, node, sample):
        family = "towline_" + sample.split("{")[0].split(" ")[0]
        samples = [line for line in node.http("/metrics")[1].splitlines() if line.startswith(family)]
        self.assertIn("towline_" + sample, samples)

    def names(self, node):
        return [slot["name"] for slot in node.status()["slots"]]

    # --- Temporary ---

    def test_a_temporary_slot_is_seen_while_it_is_there(self):
        p1 = self.primary(options={"slots.auto_create": "false"}).start()
        process = subprocess.Popen([harness.TOWCTL, "--endpoint", p1.endpoint, "tail"], stdout=subprocess.PIPE, text=True)
        try:
            slot = p1.wait(lambda status: status["slots"], "a slot")["slots"][0]
            name = slot["name"]
            self.assertTrue(name.startswith("tail-"))
            self.assertEqual((slot["temporary"], slot["state"], slot["kind"]), (True, "active", "consumer"))
            self.assertTrue(p1.towctl_json("slot", "get", name)["temporary"])
            self.assert_metric(p1, f'slot_temporary{{slot="{name}"}} 1')
            lsn = p1.client.write(towline_client.put(b"now", b"1"))
            self.assertIn(f'"lsn":{lsn},', process.stdout.readline())
            p1.wait_slot(name, lambda slot: slot["confirmed_lsn"] == lsn, "confirmed")
            process.kill()  # nothing is there to clean up
            p1.wait(lambda status: not status["slots"], "the slot is gone")
        finally:
            process.kill()
            process.communicate()

    def test_a_temporary_slot_is_not_there_after_a_restart(self):
        p1 = self.primary(options={"slots.persist_interval": "50ms"}).start()
        p1.towctl("slot", "create", "stays", "--kind", "consumer")
        process = subprocess.Popen([harness.TOWCTL, "--endpoint", p1.endpoint, "tail"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            p1.wait(lambda status: len(status["slots"]) == 2, "a slot")
            p1.towctl("slot", "create", "saved-beside-it", "--kind", "consumer")
            p1.kill9()
            p1.start()
            self.assertEqual(self.names(p1), ["saved-beside-it", "stays"])
        finally:
            process.kill()
            process.wait()

    # --- Copy, advance, drop ---

    def test_copy_advance_and_drop(self):
        p1 = self.primary(options=SMALL_LOG).start()
        begin = fill(p1, 10)
        p1.towctl("slot", "create", "one", "--kind", "consumer", "--confirmed-lsn", begin)
        copied = p1.towctl_json("slot", "copy", "one", "two")
        self.assertEqual((copied["confirmed_lsn"], copied["kind"], copied["temporary"], copied["origin"]),
                         (begin, "consumer", False, ""))
        self.assertNotEqual(copied["generation"], p1.towctl_json("slot", "get", "one")["generation"])
        self.refused(p1, 1, "slot_exists", "slot", "copy", "one", "two")
        self.refused(p1, 1, "slot_not_found", "slot", "copy", "none", "three")

        end = fill(p1, 5_000, prefix="more/", value_bytes=1000)
        self.assertEqual(p1.towctl_json("slot", "advance", "one", end)["confirmed_lsn"], end)
        p1.kill9()
        p1.start()
        slots = {slot["name"]: slot["confirmed_lsn"] for slot in p1.status()["slots"]}
        self.assertEqual(slots, {"one": end, "two": begin})
        text = self.refused(p1, 1, "advance_backwards", "slot", "advance", "one", end - 1)
        self.assertIn(f"LSN {end}", text)
        self.assertIn("--from", text)
        self.refused(p1, 1, "lsn_out_of_range", "slot", "advance", "one", end + 1_000_000)
        p1.towctl("slot", "create", "r9", "--kind", "replica")
        self.refused(p1, 4, "slot_kind", "slot", "advance", "r9", end)
        with p1.client.follow("two") as follower:
            self.assertEqual(next(iter(follower)).lsn, begin + 1)  # all of it is there
            self.refused(p1, 4, "slot_in_use", "slot", "advance", "two", end)
            self.refused(p1, 4, "slot_in_use", "slot", "drop", "two", "--yes")

        # A drop asks, and there is nobody.
        text = self.refused(p1, 4, "not_confirmed", "slot", "drop", "two", "--force")
        self.assertRegex(text, r"consumer, (in)?active")
        self.assertEqual(self.names(p1), ["one", "r9", "two"])
        p1.towctl("slot", "drop", "two", "--yes", "--force")
        p1.wait(lambda status: status["wal"]["first_lsn"] > begin + 1, "pruned")
        self.assert_metric(p1, 'slot_invalidations_total{cause="dropped"} 1')

    def test_what_is_lost_is_neither_copied_nor_advanced(self):
        p1 = self.primary(options={"slots.consumer_idle": "200ms"}).start()
        p1.towctl("slot", "create", "old", "--kind", "consumer")
        p1.wait_slot("old", lambda slot: slot["state"] == "invalidated", "invalidated")
        self.assertIn("idle_timeout", self.refused(p1, 4, "slot_invalidated", "slot", "copy", "old", "new"))
        self.refused(p1, 4, "slot_invalidated", "slot", "advance", "old", p1.status()["wal"]["durable_lsn"])

    # --- Diverged ---

    def test_a_diverged_replica_loses_its_slot(self):
        p1 = self.primary().start()
        lsn = fill(p1, 10)
        p1.towctl("slot", "create", "r9", "--kind", "replica", "--confirmed-lsn", 1)
        # A replica whose log began as that of another primary of the cluster.
        start = replication_pb2.PullStart(
            protocol_version=1, slot="r9", kind=slot_service_pb2.SLOT_KIND_REPLICA,
            format=replication_pb2.RECORD_FORMAT_FRAMES, incarnation=5, process_instance=6, credit_bytes=1000,
            cluster_id=p1.status()["cluster_id"], lsn=lsn, chain=7, first_retained_lsn=1,
            history=[types_pb2.HistoryEntry(term=1, start_lsn=1, term_id=8)])
        with grpc.insecure_channel(p1.endpoint) as channel:
            stub = replication_pb2_grpc.ReplicationServiceStub(channel)
            plan = stub.PlanResume(replication_pb2.PlanResumeRequest(start=start)).plan
            self.assertEqual((plan.decision, plan.reason), (replication_pb2.RESUME_DECISION_FULL, "diverged"))
            self.assertEqual(self.slot(p1, "r9")["state"], "inactive")
            for _ in range(2):
                answers = stub.Pull(iter([replication_pb2.PullRequest(start=start)]))
                self.assertEqual(next(answers).started.reason, "diverged")
        slot = self.slot(p1, "r9")
        self.assertEqual((slot["state"], slot["health"]), ("invalidated", "lost"))
        self.assertEqual((slot["invalidation"]["cause"], slot["invalidation"]["needed_lsn"]), ("diverged", 2))
        self.assert_metric(p1, 'slot_invalidations_total{cause="diverged"} 1')
        self.assert_metric(p1, 'slot_state{slot="r9",state="invalidated"} 1')
        self.assertEqual(p1.log().count("slot_invalidated"), 1)
        p1.kill9()
        p1.start()
        self.assertEqual(self.slot(p1, "r9")["invalidation"]["cause"], "diverged")

    # --- A lost table ---

    def test_a_lost_slot_table_holds_everything_until_it_is_accepted(self):
        for damage in ("rubbish", "empty"):
            with self.subTest(damage):
                self.lost_table(damage)

    def lost_table(self, damage):
        p1 = self.primary(f"p-{damage}", options={**SMALL_LOG, "slots.auto_create": "false"}).start()
        begin = fill(p1, 10)
        p1.towctl("slot", "create", "back", "--kind", "consumer", "--confirmed-lsn", begin)
        p1.towctl("slot", "create", "away", "--kind", "consumer", "--confirmed-lsn", begin)
        end = fill(p1, 5_000, prefix="more/", value_bytes=1000)
        p1.stop()
        for name in ("slots.a", "slots.b"):
            path = p1.data_dir / name
            self.assertTrue(path.exists())
            path.write_bytes(b"" if damage == "empty" else b"rubbish".ljust(path.stat().st_size, b"\0"))
        p1.start()
        status = p1.towctl_json("status")
        self.assertEqual((status["state"], status["state_reason"], status["slots"]), ("writable", "slots_unknown", []))
        self.assertTrue(p1.towctl_json("slot", "list")["unknown"])
        self.assertIn("UNKNOWN", p1.towctl("slot", "list").stdout)
        self.assert_metric(p1, "slots_unknown 1")

        # An owner that comes back gets its slot again; what the other one needs stays.
        with p1.client.follow("back", after_lsn=begin) as follower:
            for record in follower:
                follower.ack(record.lsn)
                if record.lsn >= end:
                    break
            p1.wait_slot("back", lambda slot: slot["confirmed_lsn"] >= end, "confirmed")
        p1.kill9()
        p1.start()
        self.assertEqual(p1.status()["state_reason"], "slots_unknown")
        self.assertEqual(self.names(p1), ["back"])
        persisted = fill(p1, 3_000, prefix="even-more/", value_bytes=1000)
        p1.wait(lambda status: status["store"]["persisted_lsn"] > end, "a flush, so that only the slots hold the log")
        self.assertLessEqual(p1.status()["wal"]["first_lsn"], begin + 1)

        self.refused(p1, 4, "not_confirmed", "slot", "accept-loss")
        accepted = p1.towctl_json("slot", "accept-loss", "--yes")
        self.assertTrue(accepted["was_unknown"])
        self.assertEqual([slot["name"] for slot in accepted["slots"]], ["back"])
        p1.wait(lambda status: status["wal"]["first_lsn"] > begin + 1, "pruned")
        self.assertEqual(p1.status()["state_reason"], "")
        self.assert_metric(p1, "slots_unknown 0")
        self.assertFalse(p1.towctl_json("slot", "accept-loss")["was_unknown"])
        with self.assertRaises(towline_client.TowlineError) as refused:
            p1.client.follow("away", after_lsn=persisted)
        self.assertEqual(refused.exception.reason, "slot_not_found")


if __name__ == "__main__":
    harness.main()
