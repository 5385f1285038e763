#!/usr/bin/python3
"""A full disk: writes are refused, everything else goes on, and writes resume when space returns. Needs root."""

import os
import subprocess

import grpc
import harness
import towline_client
from harness import NodeTest, wait_until
from workload import fill

OPTIONS = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "wal.spare_segments": "1", "store.flush_bytes": "2MiB"}


class DiskFullTest(NodeTest):
    index = 0

    def mount(self, kind):
        """A file system of 48 MiB; skips the test where that is not allowed."""
        if os.geteuid() != 0:
            self.skipTest("needs root to mount a small file system")
        mount_point = self.directory / f"small-{kind}"
        mount_point.mkdir()
        if kind == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", mount_point]
        else:
            image = self.directory / "image"
            with open(image, "wb") as file:
                file.truncate(48 << 20)
            made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], capture_output=True, text=True)
            self.assertEqual(made.returncode, 0, made.stderr)
            command = ["mount", "-o", "loop", image, mount_point]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"cannot mount {kind} here: {mounted.stderr.strip()}")
        self.addCleanup(self.unmount, mount_point)
        return mount_point

    def unmount(self, mount_point):
        for node in self.nodes:
            node.end()
        subprocess.run(["umount", mount_point], check=True)

    def fill_disk(self, directory, leave=0):
        """Takes the space that is left, but for about `leave` bytes; returns the file to remove."""
        filler = directory / "filler"
        with open(filler, "ab", buffering=0) as file:
            size = 1 << 20
            while leave and os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize > leave:
                file.write(b"x" * (256 << 10))
            size = 0 if leave else size
            while size >= 512:
                try:
                    file.write(b"x" * size)
                except OSError:
                    size //= 2
        return filler

    def write_until_refused(self, node):
        """Keys that were acknowledged before the disk was full."""
        written = []
        for _ in range(20_000):
            self.index += 1
            key = b"full/%06d" % self.index
            try:
                node.client.write(towline_client.put(key, b"v" * 4000))
                written.append(key)
            except grpc.RpcError as error:
                self.fail(f"not a refusal: {error}")
            except towline_client.TowlineError as error:
                self.assertEqual(error.__cause__.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, error)
                self.assertEqual(error.reason, "disk_full", error)
                return written
        self.fail("the disk does not get full")

    def check(self, kind):
        directory = self.mount(kind)
        # A directory of its own on the small file system, beside the file that fills it.
        p1 = self.primary(data_dir=directory / "data", options=OPTIONS).start()
        r1 = self.replica("r1", p1).start()
        fill(p1, 1000)
        self.assert_same_data(p1, r1)
        filler = self.fill_disk(directory, leave=14 << 20)
        written = self.write_until_refused(p1)
        self.fill_disk(directory)  # the rest too, which no reserve helps against
        self.assertIn("disk_full", p1.wait(lambda status: status["state_reason"], "it says why")["state_reason"])
        # Reads, streams and slots go on.
        self.assertEqual(len(list(p1.client.scan(b"fill/"))), 1000)
        self.assertEqual(p1.client.get(written[-1]), b"v" * 4000)
        self.wait_caught_up(p1, r1)
        p1.wait(lambda status: status["replicas"][0]["state"] == "streaming", "the replica is served")
        p1.wait_slot("r1", lambda slot: slot["confirmed_lsn"] == p1.status()["wal"]["durable_lsn"], "slots are saved")
        self.assertEqual(p1.http("/livez")[0], 200)
        with self.assertRaises(towline_client.TowlineError):
            p1.client.write(towline_client.put(b"still", b"full" * 300_000))
        # A stop does not wait for space, and what was acknowledged is there afterwards.
        p1.stop()
        filler.unlink()
        p1.start()
        for key in written:
            self.assertEqual(p1.client.get(key), b"v" * 4000)
        filler = self.fill_disk(directory, leave=8 << 20)
        written += self.write_until_refused(p1)
        filler.unlink()

        def writable():
            try:
                return p1.client.write(towline_client.put(b"again", b"1"))
            except towline_client.TowlineError:
                return None

        wait_until(writable, "writes resume after space has returned")
        p1.wait(lambda status: status["state"] == "writable" and not status["state_reason"], "healthy again")
        fill(p1, 1000, prefix="after/")
        self.assert_same_data(p1, r1)
        p1.kill9()
        p1.start()
        self.assert_same_data(p1, r1)
        for key in written:
            self.assertEqual(p1.client.get(key), b"v" * 4000)

    def test_the_guard_gives_up_the_slot_that_holds_the_log(self):
        directory = self.mount("tmpfs")
        options = {**OPTIONS, "disk.warn_ratio": "0.3", "disk.guard_ratio": "0.4", "slots.persist_interval": "50ms"}
        p1 = self.primary(data_dir=directory / "data", options=options).start()
        r1 = self.replica("r1", p1).start()
        p1.towctl("slot", "create", "away", "--kind", "consumer", "--confirmed-lsn", "0")
        for _ in range(200):
            # The same keys, so that it is the log that grows. Little by little: the node looks at the disk now and then,
            # and a refusal would be an error.
            fill(p1, 200)
            if self.slot(p1, "away")["state"] == "invalidated":
                break
        away = p1.wait_slot("away", lambda slot: slot["state"] == "invalidated", "it is given up")
        self.assertEqual(away["invalidation"]["cause"], "disk_pressure")
        p1.wait(lambda status: status["wal"]["retained_bytes"] < 8 << 20, "its log is removed")
        self.assertEqual(self.slot(p1, "r1")["state"], "active")
        for event in ("disk_nearly_full", "slot_invalidated"):
            self.assertIn(event, p1.log())
        metrics = p1.http("/metrics")[1]
        self.assertIn('towline_slot_state{slot="away",state="invalidated"} 1', metrics)
        self.assertIn('towline_slot_invalidations_total{cause="disk_pressure"} 1', metrics)
        used = float(next(line for line in metrics.splitlines() if line.startswith("towline_disk_used_ratio ")).split()[1])
        self.assertLess(used, 0.4)
        fill(p1, 200)
        self.assert_same_data(p1, r1)

    def test_tmpfs(self):
        self.check("tmpfs")

    def test_ext4(self):
        self.check("ext4")

    def test_a_store_without_space_shows_no_less_than_was_answered(self):
        """The log has space, the store has none: reads would not show what is durable and answered, so they wait."""
        p1 = self.primary(options=OPTIONS).start()
        fill(p1, 1000)
        p1.stop()
        # The store moves to a small file system of its own.
        store = p1.data_dir / "gen/1/db"
        mount_point = self.mount("tmpfs")
        subprocess.run(["cp", "-a", f"{store}/.", mount_point], check=True)
        subprocess.run(["mount", "--bind", mount_point, store], check=True)
        self.addCleanup(self.unmount, store)
        p1.start()
        filler = self.fill_disk(mount_point, leave=2 << 20)
        written = self.write_until_refused(p1)
        kv = p1.client
        for read in [lambda: kv.get(written[-1]), lambda: kv.get(b"fill/00000000"), lambda: list(kv.scan(b"fill/"))]:
            with self.assertRaises(towline_client.TowlineError) as refused:
                read()
            self.assertEqual(refused.exception.reason, "disk_full", refused.exception)
            self.assertIn("the store finds no space", str(refused.exception))
        p1.wait(lambda status: status["state_reason"] == "disk_full", "it says why")
        filler.unlink()

        def readable():
            try:
                return kv.get(written[-1])
            except towline_client.TowlineError:
                return None

        wait_until(readable, "reads resume after space has returned")
        for key in written:
            self.assertEqual(kv.get(key), b"v" * 4000)
        self.assertEqual(len(list(kv.scan(b"fill/"))), 1000)

    def test_snapshot_files_and_new_directories_that_do_not_fit(self):
        mount_point = self.mount("tmpfs")
        p1 = self.primary().start()
        for index in range(64):  # values that nothing can compress
            p1.client.write(towline_client.put(b"large/%d" % index, self.random.randbytes(1 << 20)))
        saved = p1.towctl("snapshot", "save", mount_point / "file.rdb", check=False)
        self.assertEqual(saved.returncode, 1, saved.stdout)
        self.assertIn("disk_full", saved.stderr)
        self.assertIn("no file was left", saved.stderr)
        self.assertEqual(list(mount_point.iterdir()), [])
        fits = self.directory / "fits.rdb"
        p1.towctl("snapshot", "save", fits)
        loaded = harness.towctl("snapshot", "load", fits, "--data-dir", mount_point, "--node-id", "n1", check=False)
        self.assertEqual(loaded.returncode, 1, loaded.stdout)
        self.assertIn("disk_full", loaded.stderr)
        self.assertEqual(list(mount_point.iterdir()), [])


if __name__ == "__main__":
    harness.main()
