#!/usr/bin/python3
"""A replica that loads a snapshot serves its old data, tells how far it is, and survives stops, a full disk and sources
that it must not follow."""

import os
import subprocess

import grpc
import harness
import towline_client  # the stubs are on the path once harness is imported
from bootstrap_checks import MIB, SMALL_LOG, BootstrapTest
from harness import wait_until
from relay import Relay
from workload import fill

RECORDS = 20_000  # about 20 MiB


class BootstrapServingTest(BootstrapTest):
    def begin(self, rate="8MiB", **replica_arguments):
        """A primary and a replica that has been asked to load a snapshot; both hold RECORDS keys "fill/"."""
        p1 = self.primary(options={**SMALL_LOG, "bootstrap.rate_limit": rate}).start()
        r1 = self.replica("r1", p1, options=SMALL_LOG, **replica_arguments).start()
        fill(p1, RECORDS)
        self.wait_caught_up(p1, r1)
        self.assertFalse(self.request(r1).already_running)
        r1.wait(lambda status: (status["bootstrap"] or {}).get("phase") == "loading", "the load has begun")
        return p1, r1

    def assert_loaded(self, p1, r1, resumes_min=0):
        """One load was finished, and none was begun again."""
        r1.wait(lambda status: status["state"] == "streaming" and status["bootstrap"] is None, "it streams", 60)
        self.assert_same_data(p1, r1)
        loads = self.finished(r1)
        self.assertEqual([load["reason"] for load in loads], ["requested"])
        self.assertGreaterEqual(int(loads[0]["resumes"]), resumes_min)
        self.assertNotIn(" bootstrap_restarted ", r1.log())
        self.assertNotIn(" bootstrap_dropped ", r1.log())
        self.assert_one_generation(r1)

    def test_old_data_is_served_and_progress_is_told(self):
        p1, r1 = self.begin()
        self.assertTrue(self.request(r1).already_running)
        p1.client.write(towline_client.put(b"new", b"1"))
        seen = []
        while (status := r1.status())["bootstrap"] is not None and status["bootstrap"]["phase"] == "loading":
            progress = status["bootstrap"]
            self.assertEqual(status["state"], "bootstrapping", status)
            self.assertEqual(progress["reason"], "requested")
            value = r1.client.get(b"new")
            if r1.status()["bootstrap"] is not None:  # before and behind the read
                self.assertIsNone(value)
            self.assertIsNotNone(r1.client.get(b"fill/%08d" % self.random.randrange(RECORDS)))
            seen.append((progress["bytes"], progress["keys"], progress["durable_bytes"]))
            self.assertLessEqual(progress["durable_bytes"], progress["bytes"])
        self.assertEqual(seen, sorted(seen), "progress never falls")
        self.assertGreaterEqual(len(set(seen)), 5)
        self.assert_loaded(p1, r1)
        self.assertEqual(r1.client.get(b"new"), b"1")
        self.assertEqual(p1.status()["resync"]["by_reason"].get("full/requested"), 1)
        metrics = r1.metrics()
        self.assertEqual((metrics["towline_bootstraps_total"], metrics["towline_bootstrap_running"]), (1, 0))
        self.assertGreater(metrics["towline_bootstrap_received_bytes_total"], RECORDS * 900)
        self.assertGreater(metrics["towline_bootstrap_last_duration_seconds"], 0)
        with self.assertRaises(grpc.RpcError) as refused:
            self.request(p1)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertEqual(towline_client.error_of(refused.exception).reason, "not_replica")

    def test_sigterm_of_either_end(self):
        p1, r1 = self.begin()
        self.assertIsNotNone(self.wait_taken(r1, RECORDS * 300))
        durable = r1.status()["bootstrap"]["durable_bytes"]
        r1.stop()
        r1.launch()
        progress = self.wait_taken(r1, durable + 1)
        self.assertIsNotNone(progress)
        self.assertEqual(len(self.generations(r1)), 2)
        self.assertIsNotNone(r1.client.get(b"fill/00000007"))
        self.wait_taken(r1, RECORDS * 600)
        p1.stop()
        p1.start()
        self.assert_loaded(p1, r1, resumes_min=2)

    def test_disk_full(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to mount a small file system")
        directory = self.directory / "small"
        directory.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", directory], capture_output=True,
                                 text=True)
        if mounted.returncode != 0:
            self.skipTest(f"cannot mount tmpfs here: {mounted.stderr.strip()}")
        self.addCleanup(self.unmount, directory)
        p1, r1 = self.begin(data_dir=directory / "data")
        self.assertIsNotNone(self.wait_taken(r1, RECORDS * 300))
        filler = directory / "filler"
        with open(filler, "wb", buffering=0) as file:
            size = MIB
            while size >= 512:
                try:
                    file.write(b"x" * size)
                except OSError:
                    size //= 2
        status = r1.wait(lambda status: status["state"] == "halted", "it pauses")
        self.assertEqual(status["state_reason"], "disk_full")
        self.assertEqual(status["bootstrap"]["phase"], "waiting")
        durable = status["bootstrap"]["durable_bytes"]
        self.assertGreater(durable, 0)
        self.assertIsNotNone(r1.client.get(b"fill/00000007"))
        self.assertEqual(r1.towctl("status", "--check", check=False).returncode, 3)
        filler.unlink()
        self.assert_loaded(p1, r1, resumes_min=1)
        resumed = [int(line.split(" bytes=")[1].split()[0]) for line in r1.log().splitlines()
                   if " bootstrap_resumed " in line]
        self.assertGreaterEqual(min(resumed), durable)

    def unmount(self, directory):
        for node in self.nodes:
            node.end()
        subprocess.run(["umount", directory], check=True)

    def test_an_empty_source_and_an_older_one_are_refused(self):
        p1 = self.primary(options=SMALL_LOG).start()
        r1 = self.replica("r1", p1).start()
        fill(p1, 500)
        self.assert_same_data(p1, r1)
        p1.stop()
        older = self.directory / "older"
        subprocess.run(["cp", "-a", p1.data_dir, older], check=True)
        p1.start()
        lsn = fill(p1, 500, prefix="more/")
        r1.wait_applied(lsn)
        before = self.assert_same_data(p1, r1).digest
        r1.stop()
        p1.stop()
        for source, reason in ((self.directory / "empty", "cluster_mismatch"), (older, "replica_ahead")):
            other = self.primary(data_dir=source, options=SMALL_LOG)
            other.grpc_port, other.http_port = p1.grpc_port, p1.http_port
            other.launch().wait_answers()
            r1.launch().wait(lambda status: status["state"] != "starting", "it has started")
            self.request(r1)
            status = r1.wait(lambda status: status["upstream"]["state"] == "refused" and status["state"] == "halted",
                             f"{source.name}: refused")
            self.assertEqual(status["state_reason"], reason)
            self.assertEqual(r1.digest().digest, before, source.name)
            self.assertEqual(len(self.generations(r1)), 1)
            self.assertEqual(self.finished(r1), [])
            r1.stop()
            other.kill9()
        p1.start()
        r1.start()
        self.assert_same_data(p1, r1)

    def test_failures_without_progress_end_in_halted(self):
        p1 = self.primary(options=SMALL_LOG).start()
        r1 = self.replica("r1", p1, options=SMALL_LOG).start()
        fill(p1, 5000)
        self.wait_members(p1, 2)
        lsn = self.wait_caught_up(p1, r1)
        r1.stop()
        relay = Relay(p1.endpoint, cut_down_after=MIB // 2)  # of each connection: less than what a commit takes
        self.addCleanup(relay.close)
        r1.upstream = relay.endpoint
        r1.launch().wait(lambda status: status["state"] != "starting", "it has started")
        self.request(r1)
        status = r1.wait(lambda status: status["state"] == "halted", "it gives up", 60)
        self.assertNotEqual(status["state_reason"], "")
        self.assertIn(" failures=3", r1.log())
        self.assertEqual(status["store"]["applied_lsn"], lsn)
        self.assertIsNotNone(r1.client.get(b"fill/00000007"))
        # It goes on trying, and says when it works again.
        relay.cut_down_after = None
        r1.wait_state("streaming", timeout=60)
        self.assert_same_data(p1, r1)
        wait_until(lambda: " replica_resumed " in r1.log(), "it says so")


if __name__ == "__main__":
    harness.main()
