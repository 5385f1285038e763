#!/usr/bin/python3
"""What a commit level costs: local, one replica flushed, one replica applied, beside PostgreSQL with a synchronous standby.

  tests/bench/commit_bench.py                     three rounds of all, 64 writers and 1
  tests/bench/commit_bench.py --only towline --seconds 3 --rounds 1

A round measures every load once, one after the other, with primary and replica of both systems on one machine and one
disk; what is not measured is idle. Values have 256 bytes; PostgreSQL upserts them with pgbench and prepared statements.
The ratios are of medians over the rounds. With one writer the time of a write is compared with what it cannot be less
than: two calls that do nothing and two syncs, measured in the same run. Needs the release build (--bin) and postgresql
(deploy/install_packages.sh --bench).
"""

import argparse
import json
import pathlib
import re
import statistics
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests/e2e"))
from peers import Bench, Postgres, PostgresSession  # noqa: E402
from processes import Ports, Processes  # noqa: E402
from towline_peer import Node  # noqa: E402
from waiting import wait_until  # noqa: E402

VALUE_BYTES = 256
WRITERS = 64
KEYS = 1_000_000
LEVELS = {"local": ("--replicas", "0"), "flushed": ("--replicas", "1"), "applied": ("--replicas", "1", "--applied")}


class Towline:
    def __init__(self, bench, seconds):
        self._seconds = seconds
        self._primary = Node(bench, "primary", "p1")
        wait_until(self._primary.status, "the primary answers")
        self._replica = Node(bench, "replica", "r1", self._primary)
        wait_until(lambda: self._primary.status()["commit"]["acking_members"] == 1, "the replica confirms")

    def measure(self, level, writers):
        report = json.loads(self._primary.towctl(
            "bench", "--mode", "unary", "--in-flight", writers, "--value-size", f"{VALUE_BYTES}B", "--key-space", KEYS,
            "--seconds", f"{round(1000 * self._seconds)}ms", "--warmup", 1, *LEVELS[level], "-o", "json"))
        assert report["errors"] == 0 and report["achieved"]["timeouts"] == 0, report
        return {"writes_per_second": report["records_per_second"], "p50_us": report["latency_us"]["p50"],
                "p99_us": report["latency_us"]["p99"], "null_per_second": report["ping"]["calls_per_second"],
                "null_p50_us": report["ping"]["latency_us"]["p50"],
                "fsync_us": [1e6 * node.status()["wal"]["fsync_p50_seconds"]
                             for node in (self._primary, self._replica)]}


class SynchronousPostgres(Postgres):
    """A primary whose commits wait for the standby's flush (synchronous_commit = on)."""

    def __init__(self, bench, seconds):
        super().__init__(bench)
        self._seconds = seconds
        directory = self._directory("postgres-primary")
        self._run("initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D", directory)
        self._primary = self._serve("postgres-primary", directory, self._port)
        self._wait_answers(self._primary, self._port)
        self._session = PostgresSession(bench, "psql-primary", self._programs, self._port)
        self._do("CREATE TABLE kv(k text PRIMARY KEY, v text)")
        standby_directory = self._directory("postgres-standby")
        self._run("pg_basebackup", "-h", "127.0.0.1", "-p", self._port, "-U", "postgres", "-D", standby_directory, "-X",
                  "stream", "-c", "fast", "-R")
        self._standby = self._serve("postgres-standby", standby_directory, bench.ports.take())
        wait_until(lambda: self._streams(self._standby), "the standby streams", 120)
        self._do("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._do("SELECT pg_reload_conf()")
        wait_until(lambda: self._session.value("SELECT string_agg(sync_state, '') FROM pg_stat_replication") == "sync",
                   "the standby is synchronous")
        self._script = bench.directory / "upsert.sql"
        self._script.write_text(
            f"\\set k random(0, {KEYS - 1})\n"
            f"INSERT INTO kv VALUES ('bench-' || lpad(:k::text, 12, '0'), '{'v' * VALUE_BYTES}') "
            "ON CONFLICT (k) DO UPDATE SET v = excluded.v;\n")
        self._script.chmod(0o644)

    def _do(self, statement):
        self._bench.processes.run("psql", [self._programs / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p",
                                           self._port, "-U", "postgres", "-c", statement])

    def measure(self, writers):
        output, _ = self._bench.processes.run("pgbench", [
            self._programs / "pgbench", "-n", "-M", "prepared", "-h", "127.0.0.1", "-p", self._port, "-U", "postgres",
            "-c", writers, "-j", 1, "-T", max(1, round(self._seconds)), "-f", self._script, "postgres"])
        return {"writes_per_second": float(re.search(r"tps = ([0-9.]+)", output)[1]),
                "mean_us": 1e3 * float(re.search(r"latency average = ([0-9.]+) ms", output)[1])}


def median(runs, name):
    return statistics.median(run[name] for run in runs)


def summarize(runs):
    """Ratios of the medians."""
    rate = {load: median(of_load, "writes_per_second") for load, of_load in runs.items()}
    ratios = {"flushed_to_local": rate[f"flushed {WRITERS}"] / rate[f"local {WRITERS}"],
              "applied_to_local": rate[f"applied {WRITERS}"] / rate[f"local {WRITERS}"]}
    one = runs["flushed 1"]
    floors = [2 * run["null_p50_us"] + sum(run["fsync_us"]) for run in one]
    ratios["one_writer_p50_to_floor"] = statistics.median(run["p50_us"] / floor for run, floor in zip(one, floors))
    if f"postgres {WRITERS}" in rate:
        ratios["flushed_to_postgres"] = rate[f"flushed {WRITERS}"] / rate[f"postgres {WRITERS}"]
        ratios["flushed_to_postgres_one_writer"] = rate["flushed 1"] / rate["postgres 1"]
    return ratios


def run(arguments, directory, processes):
    first, last = map(int, arguments.ports.split("-"))
    bench = Bench(None, directory, Ports(first, last), processes, arguments.bin, arguments.smoke)
    towline = Towline(bench, arguments.seconds)
    postgres = None
    if arguments.only != "towline":
        if Postgres.missing():
            print("commit_bench: without PostgreSQL, which is not installed", flush=True)
        else:
            postgres = SynchronousPostgres(bench, arguments.seconds)
    runs = {}
    for number in range(arguments.rounds):
        loads = [(f"{level} {writers}", lambda level=level, writers=writers: towline.measure(level, writers))
                 for writers in (WRITERS, 1) for level in LEVELS]
        if postgres:
            loads += [(f"postgres {writers}", lambda writers=writers: postgres.measure(writers))
                      for writers in (WRITERS, 1)]
        for load, measure in loads:
            figures = measure()
            runs.setdefault(load, []).append(figures)
            rest = ", ".join(f"{name} {value:.0f}" for name, value in figures.items()
                             if name.endswith("_us") and isinstance(value, float))
            print(f"round {number + 1}: {load:12} {figures['writes_per_second']:8.0f} writes/s, {rest}", flush=True)
    ratios = summarize(runs)
    for name, value in ratios.items():
        print(f"{name:32} {value:.2f}")
    return {"runs": runs, "ratios": ratios}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=SOURCE / "build/bin", help="directory of towlined, towctl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each load (default 5)")
    parser.add_argument("--only", choices=["towline"], help="without PostgreSQL")
    parser.add_argument("--directory", help="where to work (default: TMPDIR); on the disk that is to be measured")
    parser.add_argument("--ports", default="17710-17790", help="FIRST-LAST")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures here")
    parser.add_argument("--smoke", action="store_true", help="see that it works: one short round")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rounds, arguments.seconds = 1, 0.5
    return arguments


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="towline-commit-", dir=arguments.directory) as directory:
        pathlib.Path(directory).chmod(0o755)
        processes = Processes(directory)
        try:
            report = run(arguments, pathlib.Path(directory), processes)
        except AssertionError as error:
            sys.exit(f"{processes.log_tails()}commit_bench: {error}")
        finally:
            processes.end_all()
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
