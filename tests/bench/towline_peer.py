"""Towline in bootstrap_bench.py: a primary with the data, and replicas that begin with an empty directory."""

import contextlib
import http.client
import json
import re
import shutil
import signal
import subprocess
import time

from peers import BOOTSTRAP_SECONDS, WRITES_IN_FLIGHT, settle
from processes import cpu_seconds, memory
from sampler import Sampler
from waiting import wait_until

REMEMBERED_RECORDS = 1_000_000 + 4096  # kRequestWindow, and an interval of evicting


class Node:
    """A daemon with its directory."""

    def __init__(self, bench, role, name, upstream=None):
        self._bench = bench
        self.name = name
        self.directory = bench.directory / name
        self.ports = bench.ports.take(), bench.ports.take()
        options = {"data-dir": self.directory, "node-id": name, "listen": self.endpoint,
                   "http": f"127.0.0.1:{self.ports[1]}", "disk.guard_ratio": 0, "start.peer_wait": "1s",
                   # However small the data set is, what is measured is a snapshot.
                   "bootstrap.replay_max_bytes": "0B"}
        if upstream:
            options["upstream"] = upstream.endpoint
        elif bench.smoke:
            options["store.flush_interval"] = "1s"
        command = [bench.binaries / "towlined", role]
        for key, value in options.items():
            command += [f"--{key}", value]
        self.process = bench.processes.start(name, command)

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.ports[0]}"

    def _get(self, path):
        """The page, or None as long as the node does not listen."""
        self._bench.processes.check(self.process)
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[1], timeout=30)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        return None

    def status(self):
        text = self._get("/status")
        return text and json.loads(text)

    def durable(self):
        return self.status()["wal"]["durable_lsn"]

    def metric(self, name):
        """None if there is no such metric."""
        found = re.search(rf"^{name} (\S+)$", self._get("/metrics"), re.MULTILINE)
        return float(found[1]) if found else None

    def has_all_of(self, lsn):
        """Streams, with everything up to `lsn` applied."""
        status = self.status()
        return status is not None and status["state"] == "streaming" and status["store"]["applied_lsn"] >= lsn

    def has_said(self, event):
        """Whether its log has a line of that event."""
        self._bench.processes.check(self.process)
        return event in self._bench.processes.log(self.process)

    def towctl(self, *arguments, timeout=BOOTSTRAP_SECONDS):
        command = [self._bench.binaries / "towctl", "--endpoint", self.endpoint, *arguments]
        return self._bench.processes.run("towctl", command, timeout=timeout)[0]

    def digest(self):
        return json.loads(self.towctl("digest", "--timeout", "120s", "-o", "json"))

    def remove(self):
        self._bench.processes.end(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)
        self._bench.ports.give_back(*self.ports)


class Towline:
    name = "towline"
    what = "from starting towlined on an empty directory, its start-up included, until it streams with all applied"

    def __init__(self, bench):
        self._bench = bench
        self._primary = None

    @property
    def version(self):
        return "Towline " + self._primary.status()["version"]

    def prepare(self):
        self._primary = Node(self._bench, "primary", "towline-primary")
        wait_until(lambda: (self._primary.status() or {}).get("state") == "writable", "the primary is writable")
        self._primary.towctl("import", "--format", "tsv", self._bench.data.path)
        self._forget_request_ids()
        loaded = self._primary.durable()
        wait_until(lambda: self._primary.status()["store"]["persisted_lsn"] >= loaded, "the primary has flushed", 180)

    def _forget_request_ids(self):
        """The import leaves the ids of its records in the state, which a snapshot carries and the peers do not have: so
        many records without ids follow that none of them is left."""
        end = self._primary.durable() + REMEMBERED_RECORDS
        while self._primary.durable() < end:
            self._primary.towctl("bench", "--mode", "stream", "--batch", "256", "--in-flight", "8", "--key-space", "1",
                                 "--value-size", "1B", "--no-ceiling", "--warmup", "0s", "--seconds", "1s")
        self._primary.towctl("del", "bench-000000000000")

    def settle(self):
        settle(self._primary.process)

    def source_files(self):
        return [self._primary.directory]

    def bootstrap(self):
        before = cpu_seconds(self._primary.process)
        sent = self._primary.metric("towline_snapshot_sent_bytes_total")
        end = self._primary.durable()
        start = time.monotonic()
        replica = Node(self._bench, "replica", "towline-replica", self._primary)
        try:
            wait_until(replica.status, "the replica answers", interval=0.001)
            answers = time.monotonic() - start
            # Asking takes processor time from what is measured, and nobody asks pg_basebackup: so the log is looked at
            # until it is worth asking. Nobody writes, so the primary need not be asked at all.
            wait_until(lambda: replica.has_said("bootstrap_finished"), "it has the snapshot", BOOTSTRAP_SECONDS, 0.01)
            wait_until(lambda: replica.has_all_of(end), "it streams", BOOTSTRAP_SECONDS, 0.001)
            seconds = time.monotonic() - start
            result = {"seconds": seconds, "parts": {"of that: start-up of the process": answers},
                      "cpu_seconds": {"primary": cpu_seconds(self._primary.process) - before,
                                      "replica": cpu_seconds(replica.process)},
                      "snapshot_bytes": self._primary.metric("towline_snapshot_sent_bytes_total") - sent}
            assert result["snapshot_bytes"] > 0, "the replica came up without a snapshot"
            keys = replica.digest()["keys"]
            assert keys == self._bench.data.keys, f"the replica has {keys} keys"
            return result
        finally:
            replica.remove()

    # --- Under load ---

    def _bench_command(self, seconds):
        data = self._bench.data
        return ["bench", "--mode", "unary", "--in-flight", WRITES_IN_FLIGHT, "--key-space", data.keys, "--value-size",
                f"{data.value_bytes}B", "--no-ceiling", "--warmup", "0s", "--seconds", f"{seconds}s", "-o", "json"]

    @staticmethod
    def _figures(output):
        run = json.loads(output)
        assert run["errors"] == 0, run
        return {"writes_per_second": run["records_per_second"], "p50_ms": run["latency_us"]["p50"] / 1000,
                "p99_ms": run["latency_us"]["p99"] / 1000}

    def idle_writers(self, seconds):
        return self._figures(self._primary.towctl(*self._bench_command(seconds)))

    def loaded_bootstrap(self, _):
        begin = self._primary.durable()
        writers = self._bench.processes.start(
            "towctl-bench", [self._bench.binaries / "towctl", "--endpoint", self._primary.endpoint,
                             *self._bench_command(2 * BOOTSTRAP_SECONDS)],
            end_signal=signal.SIGINT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        replica = None
        try:
            wait_until(lambda: self._primary.durable() > begin + 1000, "the writers write")
            start = time.monotonic()
            replica = Node(self._bench, "replica", "towline-replica", self._primary)
            took = self._time_to_stream(replica, start)
            end = self._primary.durable()
            lag = end - ((replica.status() or {}).get("store", {}).get("applied_lsn") or 0)
            writers.send_signal(signal.SIGINT)  # it still tells its figures
            output, _ = writers.communicate(timeout=60)
            result = {"seconds": took, "converged": took is not None, "lag_records": lag,
                      "writers": self._figures(output)}
            if took is not None:
                start = time.monotonic()
                wait_until(lambda: replica.has_all_of(self._primary.durable()), "the replica has everything",
                           BOOTSTRAP_SECONDS, 0.01)
                result["caught_up_seconds"] = time.monotonic() - start
                self._compare(replica)
            return result
        finally:
            self._bench.processes.end(writers)
            if replica:
                replica.remove()

    def _time_to_stream(self, replica, start):
        """None if it does not get there under this load."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: (replica.status() or {}).get("state") == "streaming", "it streams",
                       BOOTSTRAP_SECONDS / 2, 0.01)
            return time.monotonic() - start
        self._bench.processes.check(replica.process)
        return None

    def _compare(self, replica):
        """Primary and replica hold the same."""
        ours, theirs = [node.digest() for node in (self._primary, replica)]
        assert ours == theirs, f"the replica differs: {theirs}, the primary has {ours}"

    # --- A storm ---

    def storm(self, count):
        """`count` empty replicas at once."""
        before = memory(self._primary.process)
        sent = self._primary.metric("towline_snapshot_sent_bytes_total")
        cpu = cpu_seconds(self._primary.process)
        replicas, seconds = [], {}
        start = time.monotonic()
        with Sampler(lambda: memory(self._primary.process), 0.05) as memories, \
                Sampler(lambda: self._primary.metric("towline_snapshots_live"), 0.1) as snapshots:
            try:
                for index in range(count):
                    replicas.append(Node(self._bench, "replica", f"towline-storm-{index + 1}", self._primary))

                def all_converged():
                    lsn = self._primary.durable()
                    for replica in replicas:
                        if replica.name not in seconds and replica.has_all_of(lsn):
                            seconds[replica.name] = time.monotonic() - start
                    return len(seconds) == count

                wait_until(all_converged, f"{count} replicas stream", 2 * BOOTSTRAP_SECONDS, 0.05,
                           describe=lambda: f"{len(seconds)} of {count} do")
                replica_cpu = sum(cpu_seconds(replica.process) for replica in replicas)
            finally:
                for replica in replicas:
                    replica.remove()
        live = [value for value in snapshots.values if value is not None]
        return {"replicas": count, "seconds": sorted(seconds.values()),
                "cpu_seconds": {"primary": cpu_seconds(self._primary.process) - cpu, "replicas": replica_cpu},
                "rss_before": before[0], "rss_highest": max(resident for resident, _ in memories.values),
                "anonymous_before": before[1], "anonymous_highest": max(anonymous for _, anonymous in memories.values),
                "snapshots_live_highest": max(live) if live else None,
                "snapshot_bytes": self._primary.metric("towline_snapshot_sent_bytes_total") - sent}
