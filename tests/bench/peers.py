"""Redis and PostgreSQL beside Towline in bootstrap_bench.py: primaries with the same data, replicas that begin empty.

Each peer has
  prepare()       starts a primary and loads the data into it
  bootstrap()     an empty replica follows it until it serves; what that took, as a dict
  settle()        returns when the primary is quiet
  source_files()  the directories in which the primary has its files
"""

import collections
import csv
import os
import pathlib
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import time

from processes import cpu_seconds, tree_bytes
from waiting import wait_until

BOOTSTRAP_SECONDS = 600  # a bootstrap that takes longer has failed
WRITES_IN_FLIGHT = 64

# What all peers need: the data, where to work, ports, processes, and the directory of towlined and towctl.
Bench = collections.namedtuple("Bench", "data directory ports processes binaries smoke")


def settle(process, timeout=120):
    """Waits until the disk has everything and `process` does nothing worth mentioning."""
    os.sync()

    def quiet():
        before = cpu_seconds(process)
        time.sleep(0.5)
        return cpu_seconds(process) - before < 0.03

    wait_until(quiet, f"{process.name} is quiet", timeout)


# --- Redis ---

class RedisServer:
    def __init__(self, bench, name):
        self._bench = bench
        self.port = bench.ports.take()
        directory = bench.directory / name
        directory.mkdir()
        self.process = bench.processes.start(name, [
            "redis-server", "--port", self.port, "--bind", "127.0.0.1", "--daemonize", "no", "--dir", directory,
            "--save", "", "--appendonly", "no", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0",
            "--repl-diskless-load", "swapdb"])
        self._connection = None
        wait_until(self._connect, f"{name} answers")

    def _connect(self):
        self._bench.processes.check(self.process)
        try:
            self._connection = socket.create_connection(("127.0.0.1", self.port), timeout=BOOTSTRAP_SECONDS)
        except OSError:
            return False
        self._answers = self._connection.makefile("rb")
        return True

    def call(self, *words):
        """A command whose answer is a line, a number or a string."""
        encoded = [str(word).encode() for word in words]
        self._connection.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word)
                                                                      for word in encoded))
        line = self._answers.readline()
        assert line[:1] in b"+:$" and line.endswith(b"\r\n"), f"{self.process.name}: {words}: {line!r}"
        if line[:1] == b"$":
            return self._answers.read(int(line[1:]) + 2)[:-2].decode()
        return line[1:-2].decode()

    def info(self, name):
        return next(line.split(":", 1)[1] for line in self.call("INFO").splitlines() if line.startswith(f"{name}:"))

    def end(self):
        self._connection.close()
        self._bench.processes.end(self.process)
        self._bench.ports.give_back(self.port)


class Redis:
    name = "redis"
    package = "redis-server"
    what = "from REPLICAOF at an empty server that runs already to master_link_status:up; memory only"

    @staticmethod
    def missing():
        return not all(map(shutil.which, ("redis-server", "redis-cli", "redis-benchmark")))

    def __init__(self, bench):
        self._bench = bench
        self._primary = None
        self._replicas = 0

    @property
    def version(self):
        return "Redis " + self._primary.info("redis_version")

    def prepare(self):
        self._primary = RedisServer(self._bench, "redis-primary")
        loader = self._bench.processes.start("redis-load", ["redis-cli", "-p", self._primary.port, "--pipe"],
                                             stdin=subprocess.PIPE)
        try:
            for block in self._bench.data.as_resp():
                loader.stdin.write(block)
            loader.stdin.close()
            assert loader.wait(BOOTSTRAP_SECONDS) == 0, self._bench.processes.log_tail("redis-load")
        finally:
            self._bench.processes.end(loader)
        assert int(self._primary.call("DBSIZE")) == self._bench.data.keys

    def settle(self):
        settle(self._primary.process)

    def source_files(self):
        return []

    def compress(self, word):
        """Whether it tries to compress values in a full sync: yes or no."""
        assert self._primary.call("CONFIG", "SET", "rdbcompression", word) == "OK"

    def bootstrap(self):
        self._replicas += 1
        replica = RedisServer(self._bench, f"redis-replica-{self._replicas}")
        try:
            return self._follow(replica)
        finally:
            replica.end()

    def _follow(self, replica):
        sent = int(self._primary.info("total_net_repl_output_bytes"))
        cpu = [cpu_seconds(server.process) for server in (self._primary, replica)]
        start = time.monotonic()
        replica.call("REPLICAOF", "127.0.0.1", self._primary.port)
        wait_until(lambda: replica.info("master_link_status") == "up", "the replica is up", BOOTSTRAP_SECONDS, 0.01)
        seconds = time.monotonic() - start
        # A primary without a disk file sends new writes only behind the replica's first acknowledgement.
        wait_until(lambda: "state=online" in self._primary.info("slave0"), "new writes are sent", 60, 0.01)
        online = time.monotonic() - start
        # The child that has sent the state counts as soon as its parent has waited for it.
        wait_until(lambda: self._primary.info("rdb_bgsave_in_progress") == "0", "the sending child has ended")
        cpu = [cpu_seconds(server.process) - before for server, before in zip((self._primary, replica), cpu)]
        keys = int(replica.call("DBSIZE"))
        assert keys == self._bench.data.keys, f"the Redis replica has {keys} keys"
        return {"seconds": seconds, "parts": {"until the primary sends it new writes, too": online},
                "cpu_seconds": {"primary": cpu[0], "replica": cpu[1]},
                "snapshot_bytes": int(self._primary.info("total_net_repl_output_bytes")) - sent}

    # --- Under load ---

    def _writers(self, count):
        data = self._bench.data
        return self._bench.processes.start(
            "redis-benchmark", ["redis-benchmark", "-p", self._primary.port, "-t", "set", "-P", 1, "-c",
                                WRITES_IN_FLIGHT, "-r", data.keys, "-d", data.value_bytes, "-n", count, "--csv"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def _figures(self, writers):
        """What one run of redis-benchmark says at its end."""
        output, _ = writers.communicate(timeout=BOOTSTRAP_SECONDS)
        self._bench.processes.end(writers)
        assert writers.returncode == 0, f"redis-benchmark: exit code {writers.returncode}"
        row = next(csv.DictReader(output.splitlines()))
        return {"writes_per_second": float(row["rps"]), "p50_ms": float(row["p50_latency_ms"]),
                "p99_ms": float(row["p99_latency_ms"])}

    def idle_writers(self, seconds):
        probe = self._figures(self._writers(20000))
        return self._figures(self._writers(max(1000, int(seconds * probe["writes_per_second"]))))

    def loaded_bootstrap(self, idle):
        """redis-benchmark tells its figures only at its end: short runs, one after the other, as long as the bootstrap
        takes. Their p50 is the median of the runs, their p99 that of the slowest."""
        self._replicas += 1
        replica = RedisServer(self._bench, f"redis-replica-{self._replicas}")
        runs = []
        try:
            start, took = time.monotonic(), None
            replica.call("REPLICAOF", "127.0.0.1", self._primary.port)
            while took is None:
                writers = self._writers(max(500, int(idle["writes_per_second"] / 2)))
                while writers.poll() is None:
                    if took is None and replica.info("master_link_status") == "up":
                        took = time.monotonic() - start
                    time.sleep(0.01)
                runs.append(self._figures(writers))
                assert time.monotonic() - start < BOOTSTRAP_SECONDS, "the Redis replica does not come up under load"
            start = time.monotonic()
            end = int(self._primary.info("master_repl_offset"))
            wait_until(lambda: int(replica.info("master_repl_offset")) >= end, "the Redis replica has everything")
            return {"seconds": took, "converged": True, "caught_up_seconds": time.monotonic() - start,
                    "writers": {"writes_per_second": statistics.median(run["writes_per_second"] for run in runs),
                                "p50_ms": statistics.median(run["p50_ms"] for run in runs),
                                "p99_ms": max(run["p99_ms"] for run in runs)}}
        finally:
            replica.end()


class RedisWithoutCompression:
    """The same primary, told not to try what is in vain with these values. Not its default."""

    name = "redis-raw"
    what = "as redis, with rdbcompression no on the primary"

    def __init__(self, redis):
        self._redis = redis
        self.version = redis.version
        self.settle = redis.settle
        self.source_files = redis.source_files

    def prepare(self):
        """It is the other one's primary."""

    def bootstrap(self):
        self._redis.compress("no")
        try:
            return self._redis.bootstrap()
        finally:
            self._redis.compress("yes")


# --- PostgreSQL ---

class PostgresSession:
    """One psql that stays: starting one for each poll would cost more than what is measured."""

    def __init__(self, bench, name, directory, port):
        self._bench = bench
        self._process = bench.processes.start(
            name,
            [directory / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", port, "-U", "postgres"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def value(self, query):
        """Of a query whose answer is one row of one column."""
        self._process.stdin.write(f"{query};\n")
        answer = self._process.stdout.readline()
        assert answer, f"{query}: {self._bench.processes.log_tail(self._process.name)}"
        return answer.strip()

    def end(self):
        self._bench.processes.end(self._process)


class Postgres:
    name = "postgres"
    package = "postgresql-15"
    what = "pg_basebackup -X stream -c fast, with its sync, and a standby on that until its primary says streaming"

    @staticmethod
    def directory():
        """Where Debian has the programs of a server: version 15, else the newest; None without any."""
        found = {int(path.parts[-3]): path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")
                 if path.parts[-3].isdigit()}
        return found.get(15) or (found[max(found)] if found else None)

    @classmethod
    def missing(cls):
        return cls.directory() is None

    def __init__(self, bench):
        self._bench = bench
        self._programs = self.directory()
        self._user = None
        if os.geteuid() == 0:  # which its server refuses
            self._user = pwd.getpwnam("postgres").pw_name
        self._port = bench.ports.take()
        self._primary = None
        self._session = None

    @property
    def version(self):
        return "PostgreSQL " + self._session.value("show server_version").split()[0]

    def _directory(self, name):
        directory = self._bench.directory / name
        directory.mkdir(mode=0o700)
        if self._user:
            shutil.chown(directory, self._user, self._user)
        return directory

    def _run(self, program, *arguments):
        return self._bench.processes.run(program, [self._programs / program, *arguments], user=self._user)

    def _serve(self, name, directory, port):
        return self._bench.processes.start(
            name, [self._programs / "postgres", "-D", directory, "-c", f"port={port}", "-c",
                   "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_wal_size=4GB"],
            user=self._user, end_signal=signal.SIGINT)

    def _wait_answers(self, process, port):
        def answers():
            self._bench.processes.check(process)
            return subprocess.run([self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U",
                                   "postgres"],
                                  check=False).returncode == 0

        wait_until(answers, f"{process.name} answers", 120)

    def prepare(self):
        directory = self._directory("postgres-primary")
        self._run("initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-E", "SQL_ASCII", "--locale=C",
                  "-D", directory)
        self._primary = self._serve("postgres-primary", directory, self._port)
        self._wait_answers(self._primary, self._port)
        self._bench.processes.run("psql", [
            self._programs / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", self._port,
            "-U", "postgres", "-c", "CREATE TABLE kv(k text PRIMARY KEY, v text)",
            "-c", f"\\copy kv FROM '{self._bench.data.path}'",
            # What autovacuum would do, some time during the rounds.
            "-c", "VACUUM (FREEZE, ANALYZE) kv", "-c", "CHECKPOINT"])
        self._session = PostgresSession(self._bench, "psql-primary", self._programs, self._port)
        assert int(self._session.value("SELECT count(*) FROM kv")) == self._bench.data.keys

    def settle(self):
        settle(self._primary)

    def source_files(self):
        return [self._bench.directory / "postgres-primary"]

    def bootstrap(self):
        port = self._bench.ports.take()
        directory = self._directory("postgres-standby")
        standby = None
        try:
            before = cpu_seconds(self._primary)
            start = time.monotonic()
            _, backup_cpu = self._run("pg_basebackup", "-h", "127.0.0.1", "-p", self._port, "-U", "postgres", "-D",
                                      directory, "-X", "stream", "-c", "fast", "-R")
            backup = time.monotonic() - start
            standby = self._serve("postgres-standby", directory, port)
            wait_until(lambda: self._streams(standby), "the standby streams", BOOTSTRAP_SECONDS, 0.01)
            seconds = time.monotonic() - start
            result = {"seconds": seconds, "parts": {"of that: pg_basebackup alone": backup},
                      "cpu_seconds": {"primary": cpu_seconds(self._primary) - before, "replica": cpu_seconds(standby),
                                      "pg_basebackup": backup_cpu},
                      "snapshot_bytes": tree_bytes(directory, without=("pg_wal",))}
            self._check_keys(standby, port)
            return result
        finally:
            if standby:
                self._bench.processes.end(standby)
            shutil.rmtree(directory)
            self._bench.ports.give_back(port)

    def _streams(self, standby):
        self._bench.processes.check(standby)
        return self._session.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"

    def _check_keys(self, standby, port):
        self._wait_answers(standby, port)
        session = PostgresSession(self._bench, "psql-standby", self._programs, port)
        try:
            keys = int(session.value("SELECT count(*) FROM kv"))
            assert keys == self._bench.data.keys, f"the standby has {keys} rows"
        finally:
            session.end()
