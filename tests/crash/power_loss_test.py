#!/usr/bin/python3
"""The power fails under a real ext4, again and again. Needs root, to mount.

Goal    What was acknowledged is there after every power loss, recovery never refuses, and the log goes on.
Method  The victim works on an ext4 in an image file. The file system is shut down by ioctl, without writing anything
        back, so that what was not synced is lost; in many cycles random pages were written back before, as a kernel may
        do. Then it is mounted anew, which replays its journal, and checked. It happens at an acknowledgement, in front
        of a sync, in front of any call that changes files, or at any time while the victim runs; now and then also in
        the recovery that follows, or only there, after a kill that lost nothing.
Control With a fault in the victim (common/failpoint.h), the same cycles have to find a violation, else they prove
        nothing.
"""

import collections
import contextlib
import ctypes
import fcntl
import os
import struct

import crash_lib
from crash_lib import (EXIT_DONE, EXIT_NOT_OPENED, EXIT_POISONED, EXIT_VIOLATION, KILLED, LONG, SLOW, Ledger, Victim,
                       check, run)

CYCLES = 500 if LONG else max(25, 100 // SLOW)
CYCLES_PER_IMAGE = 10
SYNCS = 70 if LONG else 24 // SLOW
CANARY_CYCLES_MAX = 60  # a fault is found in the first few
IMAGE_BYTES = 24 << 20

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
SYNC_ALL, FLUSH_JOURNAL, FLUSH_NOTHING = 0, 1, 2

LIBC = ctypes.CDLL(None, use_errno=True)
SYNC_FILE_RANGE_WRITE_AND_WAIT = 7
PAGE_BYTES = 4096


def shut_down(mount, flags):
    directory = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", flags))
    finally:
        os.close(directory)


def write_back(path, choose):
    """Writes the pages of a file that `choose` picks to the disk, as the kernel may at any time, in any order."""
    with open(path, "rb") as file:
        for offset in range(0, os.fstat(file.fileno()).st_size, PAGE_BYTES):
            if choose() and LIBC.sync_file_range(file.fileno(), ctypes.c_int64(offset), ctypes.c_int64(PAGE_BYTES),
                                                 SYNC_FILE_RANGE_WRITE_AND_WAIT) != 0:
                raise OSError(ctypes.get_errno(), "sync_file_range")


class PowerLossTest(crash_lib.CrashTest):
    def setUp(self):
        super().setUp()
        self.mount = None
        self.addCleanup(lambda: self.mount and self.unmount())
        self.ledger = Ledger()
        self.seen = collections.Counter()
        self.rows = collections.Counter()

    def make_disk(self):
        if self.mount:
            self.unmount()
        self.retire_ledger()
        self.mount = crash_lib.make_and_mount("ext4", self.directory, IMAGE_BYTES)
        self.assertNotIsInstance(self.mount, str, "cannot mount")
        self.round = 0

    def retire_ledger(self):
        self.rows += self.ledger.rows
        self.seen["unpromised records lost"] += self.ledger.shorter
        self.ledger = Ledger()

    def unmount(self):
        run(["umount", self.mount], check=True)

    def lose_power(self, victim, flags, some_pages=0.5):
        """Whatever the victim acknowledges after the file system is gone has to be true as well."""
        if self.random.random() < some_pages:
            for path in sorted(self.mount.glob("wal/*.seg")):
                self.write_back_some(path)
        shut_down(self.mount, flags)
        kill = self.random.random() < 0.5
        code = victim.finish(kill)
        self.assertIn(code, (EXIT_DONE, EXIT_VIOLATION, EXIT_NOT_OPENED, EXIT_POISONED, *([KILLED] if kill else [])))
        self.ledger.feed(victim.text)
        self.unmount()
        run(["mount", "-o", "loop", self.directory / "image", self.mount], check=True)

    def write_back_some(self, path):
        with contextlib.suppress(FileNotFoundError):  # the victim may have renamed it
            write_back(path, lambda: self.random.random() < 0.5)

    def work(self, kind, failpoint="", flags=FLUSH_NOTHING, sync=None):
        """The victim works until the power fails, or it is killed."""
        acks = self.random.randint(1, 16)
        call = self.random.randint(1, 150)
        sync = sync or self.random.randint(1, 70)
        pause = {"ack": ["--pause-at-ack", acks], "call": ["--pause-at-call", call], "sync": ["--pause-at-sync", sync],
                 "kill": ["--pause-at-sync", sync], "run": []}[kind]
        with Victim("run", self.mount, "--first-round", self.round, *pause, failpoint=failpoint) as victim:
            # It may be at its end before that.
            if kind == "run":
                victim.wait_line("acked", acks)
            else:
                victim.wait_line("paused")
            if kind == "kill":
                victim.finish(kill=True)
                self.ledger.feed(victim.text)
            else:
                self.lose_power(victim, flags, some_pages=1 if kind == "sync" else 0.5)
        self.round += self.random.randint(1, 24)

    def interrupted_recovery(self, pause=None, some_pages=0.5):
        """Returns whether the power failed in it."""
        pause = pause or self.random.choice([["--pause-at-call", self.random.randint(1, 24)], ["--pause-when-open"],
                                    ["--pause-at-ack", self.random.randint(1, 3)]])
        with Victim("check", self.mount, *self.ledger.arguments(), *pause) as victim:
            if not victim.wait_line("paused"):
                victim.finish()
                self.ledger.feed(victim.text)
                return False
            self.lose_power(victim, FLUSH_NOTHING, some_pages)
        return True

    def test_acknowledged_records_survive(self):
        for cycle in range(CYCLES):
            if cycle % CYCLES_PER_IMAGE == 0:
                self.make_disk()
            kind = self.random.choice(["ack", "call", "sync", "sync", "run", "kill", "kill"])
            flags = self.random.choices([FLUSH_NOTHING, FLUSH_JOURNAL, SYNC_ALL], [8, 1, 1])[0]
            before = self.ledger.acked
            self.work(kind, flags=flags)
            self.seen["acknowledged"] += self.ledger.acked - before
            submitted = self.ledger.submitted
            self.seen[kind] += 1
            if (kind == "kill" or self.random.random() < 0.4) and self.interrupted_recovery():
                self.seen["in recovery too"] += 1
            wrong = check(self.mount, self.ledger, watermark=cycle % 2 == 0)
            self.assertEqual(wrong, "", f"cycle {cycle}, {kind}, flags {flags}, seed {crash_lib.SEED}: {wrong}")
            self.seen["submitted"] += submitted - before
        self.retire_ledger()
        self.note(f"{CYCLES} cycles: {dict(self.seen)}; recoveries: {dict(self.rows)}")

    def test_what_a_recovery_shows_is_durable(self):
        """Nothing is lost by a kill in front of a sync, but then by a power loss behind the recovery."""
        pauses = (["--pause-when-open"], ["--pause-at-ack", 1])
        for sync in range(1, SYNCS + 1):
            for pause in pauses:
                self.make_disk()
                self.work("kill", sync=sync)
                self.assertTrue(self.interrupted_recovery(pause, some_pages=0))
                wrong = check(self.mount, self.ledger)
                self.assertEqual(wrong, "", f"killed in front of sync {sync}, {pause}: {wrong}")
        self.note(f"{SYNCS * len(pauses)} cycles")

    # --- Deliberate faults: the same cycles have to find them. ---

    def expect_caught(self, failpoint):
        for cycle in range(1, CANARY_CYCLES_MAX + 1):
            self.make_disk()
            self.work("ack", failpoint)
            wrong = check(self.mount, self.ledger)
            if wrong:
                self.note(f"found in cycle {cycle}: {self.summary(wrong)}")
                return
        self.fail(f"{failpoint} went unnoticed in {CANARY_CYCLES_MAX} cycles: this test proves nothing")

    @staticmethod
    def summary(wrong):
        said = [line for line in wrong.splitlines() if line.startswith(("violation", "failed"))]
        return said[0][:100] if said else wrong[:100]

    def test_control_a_skipped_sync_is_found(self):
        self.expect_caught("wal_skip_sync")

    def test_control_an_early_acknowledgement_is_found(self):
        self.expect_caught("wal_ack_early")

    def test_control_a_skipped_directory_sync_is_found(self):
        self.expect_caught("wal_skip_directory_sync")


def require_shutdown(mount):
    try:
        shut_down(mount, FLUSH_NOTHING)
    except OSError as error:
        crash_lib.skip(f"this kernel cannot shut an ext4 down: {error}")


if __name__ == "__main__":
    crash_lib.require_mounts("ext4", require_shutdown)
    crash_lib.main()
