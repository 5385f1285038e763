#!/usr/bin/python3
"""Figures of replication with real daemons on one machine: many slots, a frozen replica, resuming in a long log.

  tests/bench/scale_bench.py [slots] [freeze] [resume]     all three if none is named; --help lists the sizes

  slots    memory of a primary with many slots and streams at the end of the log, and how often it saves its slots
  freeze   what one frozen replica changes for the writers, for the other replica, and for the primary's memory
  resume   time from connecting to the first record, anywhere in a long log, from disk and from memory

Prints a table, and with --json FILE writes the same as JSON. Works in a directory of its own under the present one and
removes it at the end. Needs the release build (TOWLINE_BIN_DIR) and the Python packages of the end-to-end tests.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402
from harness import wait_until  # noqa: E402
import grpc  # noqa: E402
import pull_client  # noqa: E402
import towline_client  # noqa: E402
from sampler import Sampler  # noqa: E402
from towline.v1 import admin_service_pb2, admin_service_pb2_grpc, slot_service_pb2  # noqa: E402
from workload import StreamWriter  # noqa: E402

MIB = 1 << 20
GIB = 1 << 30
CREDIT = 8 * MIB  # replication.credit_bytes


class Rig:
    """A directory with nodes in it."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.nodes = []

    def primary(self, **options):
        return harness.Node(self, "p1", "primary", options=options)

    def replica(self, name, upstream, **options):
        return harness.Node(self, name, "replica", upstream, options=options)


class Report:
    def __init__(self):
        self.rows = []

    def add(self, part, what, value, unit, target=None):
        """`target` is the largest value that will do; None = only a figure."""
        row = {"part": part, "what": what, "value": value, "unit": unit, "target": target,
               "met": None if target is None else value <= target}
        self.rows.append(row)
        verdict = "" if target is None else f"   {'met' if row['met'] else 'MISSED'}: at most {target:g}"
        print(f"{part:7} {what:66} {value:12.2f} {unit}{verdict}", flush=True)

    def say(self, part, text):
        print(f"{part:7} {text}", flush=True)


def say_machine(report):
    report.say("", f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d %H:%M')}")


def resident_bytes(node):
    status = pathlib.Path(f"/proc/{node.process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


# --- Many slots ---

@contextlib.contextmanager
def modest_load(node, records_per_second):
    batch = 16
    writer = StreamWriter(node, prefix=f"w{records_per_second}/", batch=batch, value_bytes=256,
                          pace_seconds=batch / records_per_second)
    with writer:
        yield writer


def phase_of_slots(node, rate, seconds):
    """Largest memory, records and slot saves a second, while `rate` records a second are written."""
    with modest_load(node, rate):
        before, saves = node.status()["wal"]["durable_lsn"], node.metrics()["towline_slot_saves_total"]
        start = time.monotonic()
        with Sampler(lambda: resident_bytes(node), 0.2) as memory:
            time.sleep(seconds)
        took = time.monotonic() - start
        saves = node.metrics()["towline_slot_saves_total"] - saves
        records = node.status()["wal"]["durable_lsn"] - before
    return max(memory.values), records / took, max(0, saves - 1) / took  # so many intervals are between them


def bench_slots(rig, report, sizes):
    p1 = rig.primary().start()
    idle = 0
    for rate in sizes.rates:
        memory, records, _ = phase_of_slots(p1, rate, sizes.seconds)
        idle = max(idle, memory)
        report.add("slots", f"memory without slots, {records:.0f} records/s", memory / MIB, "MiB")
    names = [f"s{index:03}" for index in range(sizes.slots)]
    for name in names:
        p1.client.slots.CreateSlot(slot_service_pb2.CreateSlotRequest(name=name, kind=pull_client.CONSUMER))
    streams = [subprocess.Popen([harness.TOWCTL, "--endpoint", p1.endpoint, "tail", "--slot", name],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for name in names[:sizes.streams]]
    try:
        p1.wait(lambda status: sum(slot["state"] == "active" for slot in status["slots"]) == sizes.streams,
                "all streams are connected")
        for rate in sizes.rates:
            memory, records, saves = phase_of_slots(p1, rate, sizes.seconds)
            what = f"{sizes.slots} slots, {sizes.streams} streams, {records:.0f} records/s"
            report.add("slots", f"memory above that, {what}", (memory - idle) / MIB, "MiB", 64)
            report.add("slots", f"slot saves, {what}", saves, "/s", 1)
            start = time.monotonic()
            end = p1.status()["wal"]["durable_lsn"]
            p1.wait(lambda status: all(slot["confirmed_lsn"] >= end for slot in status["slots"]
                                       if slot["state"] == "active"), "the streams are at the end of the log")
            report.add("slots", "slowest stream at the end of the log after the last write", time.monotonic() - start,
                       "s")
        assert all(stream.poll() is None for stream in streams), "a stream has ended"
    finally:
        for stream in streams:
            stream.kill()
            stream.wait()


# --- A frozen replica ---

def phase_of_freeze(p1, sizes):
    """One run of writers: its p99 and rate, and what status and /proc tell meanwhile."""
    lags = []

    def measure():
        other = next(replica for replica in p1.status()["replicas"] if replica["slot"] == "r2")
        lags.append((other["lag_bytes"], other["lag_seconds"] or 0))
        return resident_bytes(p1)

    with Sampler(measure, 0.1) as memory:
        run = json.loads(p1.towctl(
            "bench", "--mode", sizes.mode, "--in-flight", sizes.in_flight, "--batch", 64, "--key-space", 20000,
            "--no-ceiling", "--warmup", "1s", "--seconds", f"{sizes.seconds}s", "-o", "json",
            timeout=sizes.seconds + 60).stdout)
    assert run["errors"] == 0, run
    return {"p99_ms": run["latency_us"]["p99"] / 1000, "records_per_second": run["records_per_second"],
            "lag_bytes": statistics.mean(lag[0] for lag in lags),
            "lag_seconds": statistics.mean(lag[1] for lag in lags), "memory": max(memory.values)}


def bench_freeze(rig, report, sizes):
    # Memory that depends on the amount written is bounded and reached in the first run.
    options = {"store.flush_bytes": "8MiB", "store.cache_bytes": "8MiB", "wal.keep_bytes": "64MiB",
               "slots.max_retained_bytes": "256GiB"}
    p1 = rig.primary(**options).start()
    r1, r2 = [rig.replica(name, p1, **options).start() for name in ("r1", "r2")]
    phase_of_freeze(p1, sizes)
    runs = {"all": [], "frozen": []}
    for _ in range(sizes.pairs):
        runs["all"].append(phase_of_freeze(p1, sizes))
        r1.pause()
        runs["frozen"].append(phase_of_freeze(p1, sizes))
        behind = next(replica for replica in p1.status()["replicas"] if replica["slot"] == "r1")["lag_bytes"]
        r1.resume()
        start = time.monotonic()
        end = p1.status()["wal"]["durable_lsn"]
        r1.wait_applied(end, timeout=10 * sizes.seconds)
        report.add("freeze", f"caught up after {sizes.seconds} s, {behind / MIB:.0f} MiB behind",
                   time.monotonic() - start, "s")
    resync = p1.status()["resync"]
    report.add("freeze", f"full resyncs (all: {resync['by_reason']})", resync["full_total"], "", 0)
    for what, key, unit, scale in (("writers' p99", "p99_ms", "ms", 1), ("writes", "records_per_second", "/s", 1),
                                   ("lag of the other replica, mean", "lag_bytes", "KiB", 1024),
                                   ("lag of the other replica, mean", "lag_seconds", "ms", 0.001)):
        both = {name: statistics.median(run[key] for run in phases) / scale for name, phases in runs.items()}
        report.add("freeze", f"{what}, all replicas at work", both["all"], unit)
        report.add("freeze", f"{what}, one frozen", both["frozen"], unit)
        if key != "records_per_second" and both["all"]:
            report.add("freeze", f"shift of the {what} ({unit})", 100 * (both["frozen"] / both["all"] - 1), "%", 20)
    memory = {name: max(run["memory"] for run in phases) for name, phases in runs.items()}
    report.add("freeze", "memory of the primary, all replicas at work", memory["all"] / MIB, "MiB")
    report.add("freeze", "memory above that with one frozen (twice its credit)",
               (memory["frozen"] - memory["all"]) / MIB, "MiB", 2 * CREDIT / MIB)


# --- Resuming ---

def build_log(p1, report, sizes):
    """Writes until the log has its size; few keys, so that the state stays small."""
    start = time.monotonic()
    bench = subprocess.Popen(
        [harness.TOWCTL, "--endpoint", p1.endpoint, "bench", "--mode", "stream", "--batch",
         str(max(1, 4 * MIB // sizes.value_bytes)), "--in-flight", "8", "--value-size", f"{sizes.value_bytes}B",
         "--key-space", "64", "--no-ceiling", "--warmup", "0s", "--seconds", "24h"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: bench.poll() is not None or p1.status()["wal"]["retained_bytes"] >= sizes.gib * GIB,
                   "the log has its size", timeout=3600, interval=0.5)
        assert bench.poll() is None, "the writer has ended"
    finally:
        bench.kill()
        bench.wait()
    wal = p1.status()["wal"]
    took = time.monotonic() - start
    report.add("resume", f"log of {wal['retained_bytes'] / GIB:.1f} GiB, {wal['durable_lsn']} records, written in",
               took, "s")
    return wal["durable_lsn"]


def drop_caches(node):
    """The log is not in the page cache any more."""
    os.sync()
    for segment in node.data_dir.glob("gen/*/wal/*"):
        descriptor = os.open(segment, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def connect(node):
    """A connection of its own, and not one that gRPC has already."""
    return grpc.insecure_channel(node.endpoint, options=[*towline_client.CHANNEL_OPTIONS,
                                                         ("grpc.use_local_subchannel_pool", 1)])


def time_to_first_answer(node):
    start = time.monotonic()
    with connect(node) as channel:
        admin_service_pb2_grpc.AdminServiceStub(channel).Ping(admin_service_pb2.PingRequest(), timeout=30)
        return 1000 * (time.monotonic() - start)


def time_to_first_record(node, slot, lsn):
    """Milliseconds from connecting until the record behind `lsn`, where the slot stands, is here."""
    start = time.monotonic()
    with connect(node) as channel:
        # Credit of one byte is overdrawn by one record: what is timed is not the transfer.
        begin = pull_client.consumer_start(slot, from_slot=True, credit_bytes=1)
        with pull_client.PullStream(node, begin, channel) as stream:
            assert stream.started.from_lsn == lsn + 1, stream.started
            stream.receive(lsn + 1)
            return 1000 * (time.monotonic() - start)


def bench_resume(rig, report, sizes):
    free = shutil.disk_usage(rig.directory).free
    assert free > (sizes.gib + 4) * GIB, f"{free / GIB:.0f} GiB are free, {sizes.gib + 4} are needed"
    p1 = rig.primary(**{"wal.keep_bytes": "1024GiB", "slots.max_retained_bytes": "1024GiB", "wal.scrub_rate": "0B"})
    p1.start()
    end = build_log(p1, report, sizes)
    count = max(3, sizes.positions)
    spread = [1 + (end - 2) * index // (count - 1) for index in range(count)]
    positions = {f"at-{index}": lsn for index, lsn in enumerate(spread)}
    for name, lsn in positions.items():
        p1.client.slots.CreateSlot(
            slot_service_pb2.CreateSlotRequest(name=name, kind=pull_client.CONSUMER, confirmed_lsn=lsn))
    p1.stop()
    drop_caches(p1)
    p1.start()  # nothing is left in its own memory either
    figures = {"cold": [], "warm": []}
    for name, lsn in positions.items():
        drop_caches(p1)
        figures["cold"].append(time_to_first_record(p1, name, lsn))
        p1.wait_slot(name, lambda slot: slot["state"] == "inactive", "the session is over")
        figures["warm"].append(time_to_first_record(p1, name, lsn))
    floor = [time_to_first_answer(p1) for _ in range(count)]
    report.add("resume", "connect and one call that does nothing, median", statistics.median(floor), "ms")
    for name, values in figures.items():
        report.add("resume", f"connect to first record, {name}, median of {count} positions", statistics.median(values),
                   "ms")
        report.add("resume", f"connect to first record, {name}, slowest", max(values), "ms", 20)


# --- Command line ---

PARTS = {"slots": bench_slots, "freeze": bench_freeze, "resume": bench_resume}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="slots, freeze, resume (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--slots", type=int, default=200)
    parser.add_argument("--streams", type=int, default=50, help="slots with a stream (default 50)")
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 1000], help="records a second (default 100 1000)")
    parser.add_argument("--seconds", type=int, default=60, help="length of each phase of slots and freeze (default 60)")
    parser.add_argument("--pairs", type=int, default=3, help="phases with all replicas and with one frozen (default 3)")
    parser.add_argument("--mode", choices=("unary", "stream"), default="stream", help="writers of freeze")
    parser.add_argument("--in-flight", type=int, default=16, help="writes or batches of freeze under way (default 16)")
    parser.add_argument("--gib", type=float, default=20, help="size of the log of resume (default 20)")
    parser.add_argument("--value-bytes", type=int, default=32 << 10, help="of its records (default 32768)")
    parser.add_argument("--positions", type=int, default=20, help="where it is resumed, from end to end (default 20)")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {' '.join(unknown)}")
    return arguments


def main():
    sizes = parse_arguments()
    report = Report()
    say_machine(report)
    for part in sizes.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="towline-scale-", dir=".") as directory:
            rig = Rig(pathlib.Path(directory).resolve())
            try:
                PARTS[part](rig, report, sizes)
            except BaseException:
                for node in rig.nodes:
                    node.print_log_tail()
                raise
            finally:
                for node in rig.nodes:
                    node.end()
    if sizes.json:
        pathlib.Path(sizes.json).write_text(json.dumps(report.rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
