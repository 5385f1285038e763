#!/usr/bin/python3
"""A disk that is really full. Needs root, to mount a small one.

Goal    A full disk is a refusal: nothing is acknowledged that is not there, reads go on, a recovery works, and writes
        go on by themselves, in the same process, as soon as there is space again.
Method  A file takes most of a small tmpfs or ext4; the victim appends until it is refused, the rest of the disk is
        taken too, then space is given back, again and again. In some rounds the victim is killed while the disk is
        full.
"""

import os

import crash_lib
from crash_lib import LONG, SLOW, Ledger, Victim, check, run

CYCLES = 20 if LONG else max(3, 6 // SLOW)
KILL_EVERY = 3
GIVEN_BYTES = 600 << 10  # by a cycle: some segments
DISK_BYTES = {"tmpfs": 24 << 20, "ext4": 40 << 20}


class DiskFullTest(crash_lib.CrashTest):
    def make_disk(self, kind):
        mount = crash_lib.make_and_mount(kind, self.directory, DISK_BYTES[kind])
        self.assertNotIsInstance(mount, str, "cannot mount")
        self.addCleanup(run, ["umount", mount], check=True)
        self.filler = mount / "filler"
        self.rest = mount / "rest"
        self.take(self.filler)
        self.give()
        data = mount / "data"
        data.mkdir()
        return data

    @staticmethod
    def take(path):
        """Takes all the space that is left."""
        with open(path, "ab", buffering=0) as file:
            size = 1 << 20
            while size >= 512:
                try:
                    file.write(b"x" * size)
                except OSError:
                    size //= 2

    def give(self):
        self.rest.unlink(missing_ok=True)
        with open(self.filler, "r+b") as file:
            file.truncate(max(0, os.path.getsize(self.filler) - GIVEN_BYTES))

    def start(self, data):
        victim = Victim("run", data, "--rounds", 1 << 40, "--keep-all", "--keep-open", "--pause-when-full")
        self.addCleanup(victim.__exit__)
        return victim

    def wait_line(self, victim, start):
        line = victim.wait_line(start)
        self.assertIsNotNone(line, crash_lib.describe_end(victim))
        return line

    def cycle(self, victim):
        """Full, quite full, and writable again."""
        self.wait_line(victim, "refused")
        self.wait_line(victim, "read")
        self.wait_line(victim, "paused")
        self.take(self.rest)
        victim.resume()
        # A spare that is there may still be used.
        refusals = 0
        while refusals < 3:
            paused = self.wait_line(victim, ("refused", "paused")) == "paused"
            refusals = 0 if paused else refusals + 1
            if paused:
                victim.resume()
        self.give()
        self.wait_line(victim, "resumed")

    def kill_while_full(self, victim, data, ledger):
        self.wait_line(victim, "paused")
        self.take(self.rest)
        victim.finish(kill=True)
        ledger.feed(victim.text)
        self.assertEqual(check(data, ledger, "--may-be-full", watermark=True), "")
        self.give()

    def fill_and_free(self, kind):
        data = self.make_disk(kind)
        ledger = Ledger()
        victim = self.start(data)
        for cycle in range(CYCLES):
            self.cycle(victim)
            if cycle % KILL_EVERY == 1:
                self.kill_while_full(victim, data, ledger)
                victim = self.start(data)
        victim.finish(kill=True)
        self.give()
        self.give()
        refusals = victim.text.count("\nrefused")
        self.assertEqual(check(data, ledger.feed(victim.text)), "")
        used = sum(path.stat().st_size for path in data.rglob("*"))
        self.assertGreater(used, CYCLES * GIVEN_BYTES // 2, "the log did not go on with the space that it got")
        self.note(f"{CYCLES} times full, {ledger.acked} records, {used >> 10} KiB, {refusals} refusals in the last "
                  "life")

    def test_tmpfs(self):
        self.fill_and_free("tmpfs")

    def test_ext4(self):
        self.fill_and_free("ext4")


if __name__ == "__main__":
    crash_lib.require_mounts("ext4")
    crash_lib.main()
