"""Processes of a benchmark: starting and ending them, what they cost, ports. The standard library is enough."""

import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")


def as_user(user):
    """Arguments of subprocess that make it run as `user`; None = as we do."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def ends_with_us(command, end_signal):
    """The command, getting `end_signal` if we die."""
    return ["setpriv", "--pdeathsig", signal.Signals(end_signal).name[3:], *map(str, command)]


class Processes:
    """The processes that were started here, and only those; end_all() ends them, whatever state they are in."""

    def __init__(self, directory):
        self._directory = pathlib.Path(directory)
        self._running = []

    def start(self, name, command, user=None, end_signal=signal.SIGKILL, **options):
        """Starts a process that writes to NAME.log, unless `options` say something else; `end_signal` ends it."""
        with open(self._directory / f"{name}.log", "ab") as log:
            begin = log.tell()
            process = subprocess.Popen(
                ends_with_us(command, end_signal),
                **{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT, "cwd": "/",
                   **as_user(user), **options})
        process.name, process.end_signal, process.log_begin = name, end_signal, begin
        self._running.append(process)
        return process

    def run(self, name, command, user=None, timeout=600, **options):
        """Runs a process to its end; (standard output, CPU seconds). AssertionError with its output unless it exits
        with 0."""
        before = os.times()
        result = subprocess.run(ends_with_us(command, signal.SIGKILL), capture_output=True, text=True, cwd="/",
                                timeout=timeout, **as_user(user), **options)
        after = os.times()
        assert result.returncode == 0, f"{name}: exit code {result.returncode}: {' '.join(map(str, command))}\n" \
            f"{result.stdout}\n{result.stderr}"
        return result.stdout, (after.children_user + after.children_system
                               - before.children_user - before.children_system)

    def check(self, process):
        """AssertionError with the end of its log if it is gone."""
        if process.poll() is not None:
            raise AssertionError(f"{process.name} exited with code {process.returncode}\n{self.log_tail(process.name)}")

    def end(self, process):
        if process.poll() is None:
            process.send_signal(process.end_signal)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process in self._running:
            self._running.remove(process)

    def end_all(self):
        for process in reversed(self._running[:]):
            self.end(process)

    def log(self, process):
        """What the process has written to its log so far; a log of that name may have begun before it."""
        with open(self._directory / f"{process.name}.log", "rb") as log:
            log.seek(process.log_begin)
            return log.read().decode(errors="replace")

    def log_tail(self, name, lines=20):
        with contextlib.suppress(OSError):
            text = (self._directory / f"{name}.log").read_text(errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    def log_tails(self):
        """The ends of all logs that say anything."""
        tails = ((path.stem, self.log_tail(path.stem)) for path in sorted(self._directory.glob("*.log")))
        return "".join(f"=== end of the log of {name} ===\n{tail}\n" for name, tail in tails if tail)


# --- What they cost ---

def _stat(pid):
    """(parent, CPU seconds with those of its children that it has waited for)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[1]), sum(map(int, fields[11:15])) / TICKS


def cpu_seconds(process):
    """Of a process and its descendants, the ended ones included if somebody waited for them."""
    stats = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended since
                stats[int(entry.name)] = _stat(entry.name)
    family = {process.pid}
    while True:
        more = {pid for pid, (parent, _) in stats.items() if parent in family} - family
        if not more:
            return sum(stats[pid][1] for pid in family if pid in stats)
        family |= more


def memory(process):
    """(resident bytes, those of them that no file backs)."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(1024 * int(lines[name].split()[0]) for name in ("VmRSS", "RssAnon"))


def tree_bytes(directory, without=()):
    """Bytes of the files below, but for directories of these names."""
    total = 0
    for path, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name not in without]
        total += sum(os.lstat(os.path.join(path, name)).st_size for name in files)
    return total


# --- Ports ---

class Ports:
    """Ports of loopback between two numbers that nothing listens on; each is given out once until it is given back."""

    def __init__(self, first, last):
        self._free = list(range(first, last + 1))
        random.SystemRandom().shuffle(self._free)  # two runs at a time do not try the same ones

    def take(self):
        for _ in range(len(self._free)):
            port = self._free.pop(0)
            with contextlib.closing(socket.socket()) as candidate:
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    candidate.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    self._free.append(port)
        raise AssertionError("no port is free: give a larger range with --ports")

    def give_back(self, *ports):
        self._free += ports
