#!/usr/bin/python3
"""Full re-bootstrap beside a full sync of Redis and pg_basebackup of PostgreSQL: the same data, one machine, one run.

  tests/bench/bootstrap_bench.py                      five rounds, 2,000,000 keys with values of 256 bytes
  tests/bench/bootstrap_bench.py --storm --load       then 8 Towline replicas at once; then with writers at work
  tests/bench/bootstrap_bench.py --source disk        the files of the sources come from the disk
  tests/bench/bootstrap_bench.py --values bytes       values that nothing makes smaller
  tests/bench/bootstrap_bench.py --only towline --keys 100000

A round measures every peer once, one after the other, from the moment at which an empty replica is told to follow until
it serves the state and streams. The disk alone is a peer, too: one writer of as many bytes. Values are random text, 6
bits in each byte, so LZ4 and LZF make nothing of it, but Zstandard a quarter less: that is how Towline's last level
lies on the disk. When a round begins the files of its source are in the page cache, as Redis has everything in
memory; with --source disk they are not. Everything runs on loopback, in a directory of its own that is removed at the
end. Needs the release build (--bin), redis-server and postgresql (deploy/install_packages.sh --bench), and about 6 times
the data in disk space, besides twice per replica of a storm.
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests/e2e"))
import page_cache  # noqa: E402
from disk_peer import Disk, DiskCopy  # noqa: E402
from peers import Bench, Postgres, Redis, RedisWithoutCompression  # noqa: E402
from processes import Ports, Processes  # noqa: E402
from towline_peer import Towline  # noqa: E402

MB = 1e6
PEERS = {"disk": Disk, "redis": Redis, "postgres": Postgres, "towline": Towline}
# Measured besides, with what was prepared for the first.
SECOND = {"disk": lambda peer, bench: DiskCopy(bench), "redis": lambda peer, bench: RedisWithoutCompression(peer)}
PORTS_BESIDES_STORM = 6
SOURCES = {"cache": page_cache.fill, "disk": page_cache.drop, "any": lambda directory: None}


def random_text(source, count):
    return base64.b64encode(source.randbytes(-(-count * 3 // 4)))[:count]


def random_bytes(source, count):
    """All but those that end a line or a field, or mean something to COPY."""
    value = source.randbytes(count).translate(None, UNFIT)
    while len(value) < count:
        value += source.randbytes(count - len(value)).translate(None, UNFIT)
    return value


UNFIT = b"\0\t\n\r\\"
VALUES = {"text": random_text, "bytes": random_bytes}


class Data:
    """Lines of key, tab, value, in key order; the same ones every time."""

    BLOCK = 10000

    def __init__(self, path, keys, value_bytes, values):
        self.path = path
        self.keys = keys
        self.value_bytes = value_bytes
        self.value = VALUES[values]
        self.bytes = keys * (len(self._key(0)) + value_bytes)

    @staticmethod
    def _key(number):
        return f"key:{number:012}"

    def generate(self):
        source = random.Random(1)
        with open(self.path, "wb") as file:
            for number in range(self.keys):
                file.write(b"%b\t%b\n" % (self._key(number).encode(), self.value(source, self.value_bytes)))

    def as_resp(self):
        """The data as SET commands for redis-cli --pipe, in blocks."""
        with open(self.path, "rb") as file:
            block = []
            for line in file:
                key, value = line[:-1].split(b"\t")
                block.append(b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value))
                if len(block) == self.BLOCK:
                    yield b"".join(block)
                    block = []
            yield b"".join(block)


# --- Measuring ---

def measure_rounds(peers, rounds, source):
    """{peer: [result of each round]}; `source` says where the sources have their files."""
    results = {peer.name: [] for peer in peers}
    for number in range(rounds):
        for peer in peers:
            peer.settle()
            for directory in peer.source_files():
                SOURCES[source](directory)
            result = peer.bootstrap()
            results[peer.name].append(result)
            print(f"round {number + 1} of {rounds}: {peer.name:9} {result['seconds']:8.3f} s", flush=True)
    return results


def measure_load(peers, rounds, seconds):
    """{peer: [result of each round]}: writers without and with a bootstrap under way, in turns; an empty list for peers
    that cannot."""
    results = {}
    for peer in peers:
        if isinstance(peer, (Disk, RedisWithoutCompression)):
            continue
        results[peer.name] = []
        if not hasattr(peer, "loaded_bootstrap"):
            continue
        peer.settle()
        for _ in range(rounds):
            peer.idle_writers(seconds)  # not counted: what writers cause in the background is under way then in both
            idle = peer.idle_writers(seconds)
            results[peer.name].append({"idle": idle, **peer.loaded_bootstrap(idle)})
    return results


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize(results, data):
    """{peer: {what: (unit, spread)}}"""
    summary = {}
    for peer, rounds in results.items():
        seconds = [result["seconds"] for result in rounds]
        rows = {"told to follow until it serves and streams": ("s", spread(seconds))}
        for part in rounds[0].get("parts", ()):
            rows[part] = ("s", spread([result["parts"][part] for result in rounds]))
        rows["rate, keys and values"] = ("MB/s", spread([data.bytes / MB / value for value in seconds]))
        rows["rate, keys"] = ("keys/s", spread([data.keys / value for value in seconds]))
        for process in rounds[0]["cpu_seconds"]:
            rows["processor time, " + process] = ("s", spread([result["cpu_seconds"][process] for result in rounds]))
        rows["processor time, all"] = ("s", spread([sum(result["cpu_seconds"].values()) for result in rounds]))
        rows["snapshot"] = ("MB", spread([result["snapshot_bytes"] / MB for result in rounds]))
        summary[peer] = rows
    return summary


def ratios(summary):
    """Median time of the others, as a multiple of Towline's: above 1 Towline is faster."""
    medians = {peer: next(iter(rows.values()))[1]["median"] for peer, rows in summary.items()}
    towline = medians.pop("towline", None)
    return {peer: median / towline for peer, median in medians.items()} if towline else {}


# --- Printing ---

def print_rounds(summary):
    print(f"\n{'peer':9} {'what':44} {'median':>12} {'min':>12} {'max':>12}")
    for peer, rows in summary.items():
        for what, (unit, values) in rows.items():
            digits = 3 if unit == "s" else 0 if unit == "keys/s" else 1
            print(f"{peer:9} {what:44} " + " ".join(f"{values[key]:12,.{digits}f}" for key in ("median", "min", "max"))
                  + f" {unit}")
    for peer, ratio in ratios(summary).items():
        print(f"ratio     median time of {peer} / median time of towline: {ratio:.2f}")


def print_storm(storm):
    print(f"\nstorm     {storm['replicas']} empty Towline replicas at once: all stream after "
          f"{storm['seconds'][-1]:.3f} s, the first after {storm['seconds'][0]:.3f} s")
    for what, key in (("resident", "rss"), ("that no file backs", "anonymous")):
        before, highest = storm[f"{key}_before"] / MB, storm[f"{key}_highest"] / MB
        print(f"storm     memory of the primary, {what}: {before:.1f} MB before, at most {highest:.1f} MB "
              f"({highest - before:+.1f} MB)")
    live = storm["snapshots_live_highest"]
    live = "this build has no such metric" if live is None else f"at most {live:.0f}"
    cpu = storm["cpu_seconds"]
    print(f"storm     snapshots at a time: {live}; {storm['snapshot_bytes'] / MB:.1f} MB sent; processor time: "
          f"primary {cpu['primary']:.1f} s, replicas {cpu['replicas']:.1f} s")


def print_load(load):
    print(f"\n{'peer':9} {'writers':28} {'writes/s':>12} {'p50 ms':>9} {'p99 ms':>9}")
    for peer, rounds in load.items():
        if not rounds:
            print(f"{peer:9} not measured")
        for result in rounds:
            for what, figures in (("no bootstrap", result["idle"]), ("during a bootstrap", result["writers"])):
                print(f"{peer:9} {what:28} {figures['writes_per_second']:12,.0f} {figures['p50_ms']:9.3f} "
                      f"{figures['p99_ms']:9.3f}")
            if result["converged"]:
                print(f"{peer:9} the replica streams after {result['seconds']:.3f} s; when the writers stop it has "
                      f"everything {result['caught_up_seconds']:.3f} s later")
            else:
                print(f"{peer:9} the replica does NOT stream under this load: {result['lag_records']} records behind")
        if rounds:
            p99 = spread([result["writers"]["p99_ms"] / result["idle"]["p99_ms"] for result in rounds])
            rate = spread([result["writers"]["writes_per_second"] / result["idle"]["writes_per_second"]
                           for result in rounds])
            print(f"{peer:9} with / without a bootstrap, median (min to max): p99 {p99['median']:.2f} ({p99['min']:.2f} to "
                  f"{p99['max']:.2f}), writes/s {rate['median']:.2f} ({rate['min']:.2f} to {rate['max']:.2f})")


# --- Command line ---

def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=2000000)
    parser.add_argument("--value-bytes", type=int, default=256, help="of each value (default 256)")
    parser.add_argument("--values", choices=VALUES, default="text",
                        help="random text (default), or random bytes, of which no compression makes less")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", choices=SOURCES, default="cache",
                        help="where the files of the sources are when a round begins: in the page cache (default), on "
                             "the disk only, or wherever they happen to be")
    parser.add_argument("--only", metavar="PEERS", help="some of disk,redis,postgres,towline (default: all)")
    parser.add_argument("--storm", type=int, nargs="?", const=8, default=0, metavar="N",
                        help="then N empty Towline replicas at once (default 8)")
    parser.add_argument("--load", type=int, nargs="?", const=3, default=0, metavar="N",
                        help="then N bootstraps with writers at work on the primary (default 3)")
    parser.add_argument("--load-seconds", type=int, default=10, help="the writers without a bootstrap (default 10)")
    parser.add_argument("--smoke", action="store_true",
                        help="5,000 keys, one round, writers for 1 s; peers that are not installed are left out")
    parser.add_argument("--bin", type=pathlib.Path, metavar="DIR",
                        default=os.environ.get("TOWLINE_BIN_DIR", SOURCE / "build/bin"),
                        help="where towlined and towctl are (default: TOWLINE_BIN_DIR, else build/bin)")
    parser.add_argument("--directory", type=pathlib.Path, metavar="DIR",
                        help="work in a new directory below this one (default: that of temporary files)")
    parser.add_argument("--keep", action="store_true", help="do not remove the directory at the end")
    parser.add_argument("--ports", default="7950-7999", metavar="FIRST-LAST", help="of loopback (default 7950-7999)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.keys, arguments.rounds, arguments.load_seconds = 5000, 1, 1
    arguments.peers = arguments.only.split(",") if arguments.only else list(PEERS)
    unknown = [name for name in arguments.peers if name not in PEERS]
    if unknown:
        parser.error(f"--only: no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if min(arguments.keys, arguments.value_bytes, arguments.rounds) < 1 or min(arguments.storm, arguments.load) < 0:
        parser.error("--keys, --value-bytes and --rounds must be at least 1, --storm and --load at least 0")
    if "towline" not in arguments.peers and arguments.storm:
        parser.error("--storm measures towline, which --only leaves out")
    try:
        first, last = map(int, arguments.ports.split("-"))
    except ValueError:
        parser.error(f"--ports: FIRST-LAST is needed, not {arguments.ports}")
    if last - first + 1 < PORTS_BESIDES_STORM + 2 * arguments.storm:
        parser.error(f"--ports: a storm of {arguments.storm} needs {PORTS_BESIDES_STORM + 2 * arguments.storm} ports, "
                     f"{arguments.ports} has {last - first + 1}")
    for directory in filter(None, (arguments.directory, arguments.json and arguments.json.resolve().parent)):
        if not directory.is_dir():
            parser.error(f"{directory} is no directory")
    arguments.ports = Ports(first, last)
    return arguments


def choose_peers(arguments):
    """Those that can run here; ends the program if one is missing, or with --smoke says so and leaves it out."""
    chosen = []
    for name in arguments.peers:
        peer = PEERS[name]
        if peer is Towline:
            for program in ("towlined", "towctl"):
                if not os.access(arguments.bin / program, os.X_OK):
                    sys.exit(f"{arguments.bin / program} is missing: build the release preset, or name its directory "
                             "with --bin")
        elif peer.missing():
            text = (f"{name} is not installed: it is in the Debian package {peer.package} "
                    "(deploy/install_packages.sh --bench)")
            if not arguments.smoke:
                sys.exit(f"{text}; or leave it out with --only")
            print(f"{text}; left out", flush=True)
            continue
        chosen.append(name)
    return chosen


@contextlib.contextmanager
def work_directory(arguments):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="towline-bootstrap-", dir=arguments.directory)).resolve()
    directory.chmod(0o711)  # PostgreSQL's server may run as another user
    try:
        yield directory
    finally:
        if arguments.keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def check_space(directory, arguments):
    needed = (6 + 2 * arguments.storm) * arguments.keys * (arguments.value_bytes + 64) + (1 << 30)
    free = shutil.disk_usage(directory).free
    if free < needed:
        sys.exit(f"{directory}: {free / MB:.0f} MB are free, about {needed / MB:.0f} MB are needed: fewer --keys, a "
                 "smaller --storm, or another --directory")


def prepare(bench, names):
    """The peers, loaded; those that are measured in another way too, twice."""
    peers = []
    for name in names:
        start = time.monotonic()
        peer = PEERS[name](bench)
        peer.prepare()
        print(f"{name}: {peer.version}, loaded in {time.monotonic() - start:.1f} s; measured: {peer.what}", flush=True)
        peers.append(peer)
        if name in SECOND:
            peers.append(SECOND[name](peer, bench))
            print(f"{peers[-1].name}: {peers[-1].what}", flush=True)
    return peers


def run(arguments, names, directory, processes):
    data = Data(directory / "data.tsv", arguments.keys, arguments.value_bytes, arguments.values)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d %H:%M')}; "
          f"{data.keys} keys, values of {data.value_bytes} bytes ({arguments.values}), {data.bytes / MB:.1f} MB; files of "
          f"the sources: {arguments.source}", flush=True)
    data.generate()
    peers = prepare(Bench(data, directory, arguments.ports, processes, arguments.bin.resolve(), arguments.smoke), names)
    report = {"processors": os.cpu_count(), "load_before": os.getloadavg()[0], "keys": data.keys,
              "value_bytes": data.value_bytes, "values": arguments.values, "data_bytes": data.bytes,
              "source": arguments.source,
              "peers": {peer.name: {"version": peer.version, "measured": peer.what} for peer in peers}}
    report["rounds"] = measure_rounds(peers, arguments.rounds, arguments.source)
    summary = summarize(report["rounds"], data)
    report["summary"] = {peer: {what: {"unit": unit, **values} for what, (unit, values) in rows.items()}
                         for peer, rows in summary.items()}
    report["ratio_to_towline"] = ratios(summary)
    print_rounds(summary)
    if arguments.storm:
        towline = next(peer for peer in peers if isinstance(peer, Towline))
        towline.settle()
        report["storm"] = towline.storm(arguments.storm)
        print_storm(report["storm"])
    if arguments.load:
        report["load"] = measure_load(peers, arguments.load, arguments.load_seconds)
        print_load(report["load"])
    return report


def main():
    arguments = parse_arguments()
    arguments.bin = pathlib.Path(arguments.bin)
    names = choose_peers(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with work_directory(arguments) as directory:
        check_space(directory, arguments)
        processes = Processes(directory)
        try:
            report = run(arguments, names, directory, processes)
        except AssertionError as error:
            sys.exit(f"{processes.log_tails()}bootstrap_bench: {error}")
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        finally:
            processes.end_all()
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
