"""A real Redis server for a test: it listens on a Unix socket in a directory of its own, and ends with the test."""

import pathlib
import shutil
import socket
import subprocess

from harness import wait_until

PROGRAMS = ("redis-server", "redis-cli", "redis-check-rdb")


def installed():
    return all(shutil.which(program) for program in PROGRAMS)


class RedisServer:
    """Started by the constructor. Commands take and give bytes."""

    def __init__(self, directory, *options, dump=None):
        """`dump` = an RDB file that it begins with."""
        self.directory = pathlib.Path(directory)
        self.directory.mkdir()
        if dump is not None:
            shutil.copyfile(dump, self.dump_path)
        self._socket_path = str(self.directory / "redis.sock")
        with open(self.directory / "server.log", "wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "redis-server", "--port", "0", "--unixsocket", self._socket_path,
                 "--dir", str(self.directory), "--save", "", "--appendonly", "no", "--enable-debug-command", "local",
                 *options], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self._connection = None
        wait_until(self._try_ping, "the Redis server answers", describe=self._log)

    @property
    def dump_path(self):
        return self.directory / "dump.rdb"

    def _log(self):
        return (self.directory / "server.log").read_text(errors="replace")[-2000:]

    def _try_ping(self):
        assert self._process.poll() is None, f"redis-server ended: {self._log()}"
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._socket_path)
        except OSError:
            connection.close()
            return False
        self._connection = connection
        self._answers = connection.makefile("rb")
        connection.sendall(self._encode(["PING"]))
        if self._answers.readline() == b"+PONG\r\n":
            return True
        self._answers.close()  # it still loads its dump
        connection.close()
        return False

    def __call__(self, *arguments):
        """One command and its answer. AssertionError if that is an error."""
        return self.pipeline([arguments])[0]

    def pipeline(self, commands, chunk=1000):
        """Many commands, and their answers in order."""
        answers = []
        for begin in range(0, len(commands), chunk):
            part = commands[begin:begin + chunk]
            self._connection.sendall(b"".join(self._encode(command) for command in part))
            answers += [self._read() for _ in part]
        return answers

    @staticmethod
    def _encode(arguments):
        arguments = [a if isinstance(a, bytes) else str(a).encode() for a in arguments]
        return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in arguments)

    def _read(self):
        line = self._answers.readline()
        kind, rest = line[:1], line[1:-2]
        assert kind in (b"+", b":", b"$", b"*"), f"Redis answered {line!r}"
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if int(rest) < 0:
            return None
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        return self._answers.read(int(rest) + 2)[:-2]

    def save(self):
        """Writes the dump, holds it against redis-check-rdb, and returns its path."""
        assert self("SAVE") == b"OK"
        check = subprocess.run(["redis-check-rdb", str(self.dump_path)], capture_output=True, text=True, check=False)
        assert check.returncode == 0, check.stdout
        return self.dump_path

    def strings(self, db=0):
        """{key: (value, expiry as Unix milliseconds, 0 = never)} of all strings."""
        self("SELECT", db)
        keys = self("KEYS", "*")
        types = self.pipeline([("TYPE", key) for key in keys])
        keys = [key for key, kind in zip(keys, types) if kind == b"string"]
        values = self.pipeline([("GET", key) for key in keys])
        expiries = self.pipeline([("PEXPIRETIME", key) for key in keys])
        self("SELECT", 0)
        return {key: (value, max(expiry, 0)) for key, value, expiry in zip(keys, values, expiries)}

    def stop(self):
        if self._connection is not None:
            self._answers.close()
            self._connection.close()
        self._process.kill()
        self._process.wait()
