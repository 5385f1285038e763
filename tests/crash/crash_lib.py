"""What the tests of this directory share: the victim (wal_script.cc), what it promised, and its system calls.

  TOWLINE_TEST_BIN_DIR  where wal_script and short_writes are
  TOWLINE_LONG=1        long forms
  TOWLINE_SEED=N        random choices of a failed run again; it is printed at the start
  TOWLINE_SLOW=N        all deadlines times N, short forms N times shorter (sanitizers)
  TMPDIR                where directories and images of the tests go; default: memory in the short form, where it is
                        three times as fast and no promise depends on it, beside the programs in the long form
"""

import collections
import os
import pathlib
import random
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("TOWLINE_TEST_BIN_DIR", SOURCE / "build/release/tests/bin"))
WAL_SCRIPT = str(BIN / "wal_script")
SHORT_WRITES = str(BIN / "short_writes")
LONG = os.environ.get("TOWLINE_LONG") == "1"
SLOW = int(os.environ.get("TOWLINE_SLOW", "1"))
SEED = int(os.environ.get("TOWLINE_SEED") or random.SystemRandom().getrandbits(32))

# Of wal_script.
KILLED = -9
EXIT_DONE, EXIT_VIOLATION, EXIT_NOT_OPENED, EXIT_POISONED = 0, 1, 12, 13
SKIPPED = 77  # of a test, for ctest

DEADLINE = 20 * SLOW  # of one run of a program; the longest takes a second
# The leak check of AddressSanitizer cannot run under a tracer. A sanitizer's exit code is none of the victim's.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + " detect_leaks=0 exitcode=99",
               "UBSAN_OPTIONS": os.environ.get("UBSAN_OPTIONS", "") + " exitcode=99"}


# --- What was promised ---

class Ledger:
    """What the victim said so far, over all its lives on one directory."""

    def __init__(self):
        self.acked = 0
        self.submitted = 0
        self.retained = 1    # what a completed prune saved
        self.prunable = 1    # what a prune may have saved
        self.violations = []
        self.rows = collections.Counter()  # of the recovery table
        self.shorter = 0     # recoveries in which unacknowledged records were gone

    def feed(self, text):
        """Takes the lines of one life. A last line that is cut off was never said."""
        for line in text.split("\n")[:-1]:
            words = line.split()
            if words[0] == "append":
                self.submitted = max(self.submitted, int(words[2]))
            elif words[0] == "acked":
                self.acked = max(self.acked, int(words[1]))
            elif words[0] == "prune":
                self.prunable = max(self.prunable, int(words[1]))
            elif words[0] == "retained":
                self.retained = max(self.retained, int(words[1]))
            elif words[0] == "recovered":
                self.rows[words[3]] += 1
                self._recovered(int(words[1]), int(words[2]))
            elif words[0] == "violation":
                self.violations.append(line)
        return self

    def _recovered(self, first, end):
        if not self.acked <= end <= self.submitted:
            self.violations.append(f"recovered up to LSN {end}; acknowledged {self.acked}, submitted {self.submitted}")
        if not self.retained <= first <= max(self.prunable, self.retained):
            self.violations.append(f"recovered from LSN {first}; {self.retained} to {self.prunable} was saved")
        self.shorter += end < self.submitted
        # Readers may have it from now on, so it has to stay. What is behind it was never there.
        self.acked = self.submitted = end
        self.retained = first

    def arguments(self):
        return ["--acked", str(self.acked), "--submitted", str(self.submitted)]


# --- Running the victim ---

def place():
    """Where directories and images go."""
    memory = pathlib.Path("/dev/shm")
    if os.environ.get("TMPDIR"):
        return os.environ["TMPDIR"]
    if not LONG and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 256 << 20:
        return memory
    return BIN


def run(command, **options):
    """Runs to the end; the result has the output as text, with stderr in `stderr`."""
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=DEADLINE, env=ENVIRONMENT, **options)


def script(directory, *arguments, prefix=()):
    return run([*prefix, WAL_SCRIPT, "run", directory, *arguments])


def describe(result):
    tail = "\n".join(result.stdout.splitlines()[-15:])
    return f"exit code {result.returncode}, the end of its output:\n{tail}\n{result.stderr[-2000:]}"


def check(directory, ledger, *arguments, watermark=False):
    """Recovers and checks the directory. Returns what is wrong, "" if nothing."""
    said = ["--watermark", str(ledger.acked)] if watermark else []
    result = run([WAL_SCRIPT, "check", directory, *ledger.arguments(), *said, *arguments])
    ledger.feed(result.stdout)
    if result.returncode != EXIT_DONE or not result.stdout.endswith("\nchecked\n"):
        return describe(result)
    return "; ".join(ledger.violations)


class Victim:
    """A run of the victim that goes on while we look. It ends with us, however we end."""

    def __init__(self, *arguments, failpoint=""):
        command = ["setpriv", "--pdeathsig", "KILL", WAL_SCRIPT, *[str(word) for word in arguments]]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env={**ENVIRONMENT, "TOWLINE_FAILPOINTS": failpoint})
        self.text = ""
        self._seen = 0  # bytes of the text that wait_line has looked at

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _read(self, deadline):
        """Waits for more output. False at its end."""
        ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"waited {DEADLINE} s in vain; it said: ...{self.text[-500:]}")
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        self.text += data.decode()
        return bool(data)

    def wait_line(self, start, count=1):
        """Waits for `count` more lines that begin with `start` (or one of several). Returns the last of them, or None
        if it ends before that."""
        deadline = time.monotonic() + DEADLINE
        while True:
            while (end := self.text.find("\n", self._seen)) >= 0:
                count -= self.text.startswith(start, self._seen)
                self._seen = end + 1
                if count == 0:
                    return self.text[:end].rpartition("\n")[2]
            if not self._read(deadline):
                return None

    def resume(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def finish(self, kill=False):
        """Waits for its end, without any more pauses. Returns the exit code; the text is complete then."""
        if kill:
            self.process.kill()
        self.process.stdin.close()
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline):
            pass
        return self.process.wait(DEADLINE)


def describe_end(victim):
    return f"it has ended with code {victim.process.poll()}; it said: ...{victim.text[-1000:]}"


# --- System calls ---

# Names of the calls that change files, on any architecture. A kill between others leaves the same files.
CHANGING = {"openat", "pwrite64", "fdatasync", "fsync", "rename", "renameat", "renameat2", "unlink", "unlinkat",
            "mkdir", "mkdirat", "rmdir", "ftruncate", "link", "linkat"}
READING = {"pread64"}
REQUIRED = [{"openat"}, {"pwrite64"}, {"fdatasync"}, {"fsync"}, {"rename", "renameat", "renameat2"},
            {"unlink", "unlinkat"}, {"mkdir", "mkdirat"}, {"ftruncate"}]
TRACED = "trace=/^(" + "|".join(sorted(CHANGING | READING | {"write"})) + ")$"

CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+|\?)(.*)$")
MARK = re.compile(r'^1(?:<.*?>)?, "(.*?)(?:\\n)?"')


class Call:
    """One line of a trace."""

    def __init__(self, name, number, arguments, result, rest, phase):
        self.name = name
        self.number = number  # among the calls of this name, from 1; what strace's when= counts
        self.arguments = arguments
        self.result = result
        self.error = rest.split()[0] if result == -1 and rest.split() else ""
        self.injected = "(INJECTED)" in rest
        self.phase = phase  # first word of the last line that the victim wrote before: append, maintain, ...
        self.said = None    # that line, if this call writes one

    def touches(self, pattern):
        return re.search(pattern, self.arguments) is not None

    def __repr__(self):
        return f"{self.phase}: {self.name}({self.arguments[:150]}) #{self.number} = {self.result} {self.error}"


def parse_trace(text):
    calls = []
    numbers = {}
    phase = "start"
    for line in text.splitlines():
        match = CALL.match(line)
        if match is None:
            continue
        name, arguments, result, rest = match.groups()
        numbers[name] = numbers.get(name, 0) + 1
        call = Call(name, numbers[name], arguments, -1 if result == "?" else int(result), rest, phase)
        mark = MARK.match(arguments) if name == "write" else None
        if mark is not None:
            call.said = mark.group(1)
            phase = call.said.split()[0]
        calls.append(call)
    return calls


def strace(*options, log="/dev/null", trace=TRACED):
    """The words in front of a command. No --seccomp-bpf: with it, strace 6.1 does not deliver injected signals."""
    return ["strace", "-f", "-qq", "-y", "-s", "40", "-e", "signal=none", "-o", str(log), "-e", trace,
            *options]


def injection(name, what, when):
    return ["-e", f"inject={name}:{what}:when={when}"]


# --- Tests ---

class CrashTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="towline-crash-", dir=place()))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.random = random.Random(SEED)
        self.started = time.monotonic()

    def note(self, text):
        print(f"{self.id().split('.')[-1]}: {text} ({time.monotonic() - self.started:.1f} s)", flush=True)

    def fresh(self, name="node"):
        """An empty directory for a victim."""
        directory = self.directory / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory

    def baseline(self, *arguments, names=CHANGING):
        """The calls of an undisturbed run, from the first "open" on, and what it says."""
        log = self.directory / "trace"
        result = script(self.fresh(), *arguments, prefix=strace(log=log))
        self.assertEqual(result.returncode, EXIT_DONE, describe(result))
        calls = parse_trace(log.read_text(errors="replace"))
        calls = [call for call in calls if call.phase != "start" and call.name in names]
        found = {call.name for call in calls}
        for group in REQUIRED:
            self.assertTrue(found & group, f"the victim never calls {group}")
        return calls, result.stdout


def skip(reason):
    """Ends the program as ctest's "skipped"."""
    print(f"SKIPPED: {reason}", flush=True)
    sys.exit(SKIPPED)


def require_tracing():
    if shutil.which("strace") is None:
        skip("strace is not installed")
    probe = run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"])
    if probe.returncode != 0:
        skip(f"strace cannot trace here: {probe.stderr.strip()}")


def require_mounts(kind, probe=lambda mount: None):
    """Goes on in a mount namespace of its own: whatever ends this process, its mounts and loop devices end with it."""
    if os.geteuid() != 0:
        skip("needs root, to mount a file system")
    if os.environ.get("TOWLINE_CRASH_NAMESPACE") != "1":
        tried = run(["unshare", "--mount", "--propagation", "private", "true"])
        if tried.returncode != 0:
            skip(f"cannot make a mount namespace here: {tried.stderr.strip()}")
        os.environ["TOWLINE_CRASH_NAMESPACE"] = "1"
        sys.stdout.flush()
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, "-B", *sys.argv])
    with tempfile.TemporaryDirectory(prefix="towline-crash-", dir=place()) as directory:
        mount = make_and_mount(kind, pathlib.Path(directory), 16 << 20)
        if isinstance(mount, str):
            skip(f"cannot mount {kind} here: {mount}")
        try:
            probe(mount)
        finally:
            run(["umount", mount], check=True)


def make_image(image, size):
    with open(image, "wb") as file:
        file.truncate(size)
    run(["mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", image], check=True)


def make_and_mount(kind, directory, size):
    """Mounts an empty file system of `size` bytes in `directory`. Returns the mount point, or why it cannot be."""
    mount_point = directory / "mount"
    mount_point.mkdir(exist_ok=True)
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount_point]
    else:
        make_image(directory / "image", size)
        command = ["mount", "-o", "loop", directory / "image", mount_point]
    mounted = run(command)
    return mount_point if mounted.returncode == 0 else mounted.stderr.strip()


def main():
    # ctest keeps the end of a long output; the notes of a passed test are few.
    print(f"seed {SEED}, {'long' if LONG else 'short'} form", flush=True)
    sys.stdout.reconfigure(line_buffering=True)
    unittest.main(verbosity=2)
