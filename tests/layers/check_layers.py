"""Checks the layer rules of the tree: includes, operating system calls, file sizes, targets, link symbols.

  check_layers.py --root DIR                   sources
  check_layers.py --root DIR --libraries L...  undefined symbols of the core's static libraries
  check_layers.py --root DIR --self-test       plants one violation of each rule in a copy and expects a report

Every report is one line: file:line: [rule] what is wrong; what to use instead. Exit code 1 if there is any.
docs/ARCHITECTURE.md explains why the layers are what they are.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple


# --- Who may include whom. A directory may always include itself. ---

class Layer(NamedTuple):
    may_include: set
    core: bool = False      # no socket, no OS calls, no hash order, value types of Abseil only
    messages: bool = False  # *.pb.h
    grpc: bool = False      # *.grpc.pb.h, grpcpp/


CORE_MODULES = {"common", "wal", "slots", "store", "primary", "replica"}
LAYERS = {
    "common": Layer(set(), core=True),
    "wal": Layer({"common"}, core=True),
    "slots": Layer({"common"}, core=True),
    "store": Layer({"common"}, core=True, messages=True),
    "store/rocksdb": Layer({"common", "store"}, core=True, messages=True),
    "primary": Layer({"common", "wal", "slots", "store"}, core=True, messages=True),
    "replica": Layer({"common", "wal", "slots", "store"}, core=True, messages=True),
    "server": Layer(CORE_MODULES | {"store/rocksdb", "client"}, messages=True, grpc=True),
    "client": Layer({"common"}, messages=True, grpc=True),
    "ctl": Layer({"client", "common", "wal", "slots", "store", "store/rocksdb"}, messages=True, grpc=True),
}
# Tests that must not need a socket: those of the core, and what they share.
TESTS_WITHOUT_GRPC = {"common", "wal", "slots", "store", "primary", "replica", "sim", "crash", "fuzz", "golden",
                      "support"}

# --- What only some places may use. ---

# Library headers and the layers that may include them; "tests/x" stands for a directory of tests.
LIBRARY_HEADERS = [
    (r"rocksdb/", {"store/rocksdb", "tests/assumptions"}, "the Store interface (store/store.h)"),
    (r"spdlog/", {"server"}, "common::Logger (common/logger.h)"),
    (r"prometheus/", {"server"}, "a plain stats struct that the server turns into metrics"),
    (r"httplib\.h", {"server", "ctl", "tests/server", "tests/ctl", "tests/e2e"}, "the server's HTTP adapter"),
    (r"isa-l(/|\.h)", {"common", "tests/common"}, "common/checksum.h"),
    (r"xxhash\.h", {"common", "tests/common"}, "common/checksum.h"),
]

ABSEIL_IN_CORE = re.compile(
    r"absl/(status|strings|types|functional|cleanup|numeric|memory|meta|utility|algorithm)/"
    r"|absl/base/(attributes|macros|optimization|casts)\.h")

OS_HEADERS = re.compile(
    r"(sys/.*|linux/.*|asm/.*|netinet/.*|arpa/.*|fcntl\.h|unistd\.h|dirent\.h|poll\.h|pthread\.h|sched\.h|time\.h"
    r"|signal\.h|netdb\.h|ctime|random|fstream|filesystem|thread|mutex|shared_mutex|condition_variable|future)$")
OS_HEADER_INSTEAD = {
    "ctime": "Clock (common/clock.h)", "time.h": "Clock (common/clock.h)",
    "random": "Rng (common/rng.h)", "sys/random.h": "Rng (common/rng.h)",
    "thread": "Executor (common/executor.h)", "future": "Executor (common/executor.h)",
    "pthread.h": "Executor (common/executor.h)", "mutex": "Mutex (common/mutex.h)",
    "shared_mutex": "Mutex (common/mutex.h)", "condition_variable": "CondVar (common/mutex.h)",
}
OS_TOKENS = [
    (re.compile(r"\b(system_clock|steady_clock|high_resolution_clock|file_clock|utc_clock)\s*::\s*now\b"),
     "Clock (common/clock.h)"),
    (re.compile(r"(?<![\w.>])(clock_gettime|gettimeofday|absl::Now|::time)\s*\("), "Clock (common/clock.h)"),
    (re.compile(r"\bthis_thread\s*::\s*(sleep_for|sleep_until|yield)\b"), "Clock or Executor (common/)"),
    (re.compile(r"(?<![\w.>])(nanosleep|clock_nanosleep|usleep)\s*\("), "Clock or Executor (common/)"),
    (re.compile(r"\bstd\s*::\s*(random_device|mt19937(_64)?|default_random_engine|rand|srand)\b"),
     "Rng (common/rng.h)"),
    (re.compile(r"(?<![\w.>])(getrandom|getentropy|srand)\s*\("), "Rng (common/rng.h)"),
    (re.compile(r"\bstd\s*::\s*(filesystem|[io]?fstream|fopen|FILE|remove\s*\(\s*\"|rename)\b"),
     "FileSystem (common/file_system.h)"),
    (re.compile(r"(?<![\w.>])(fopen|openat|pwrite|pwritev|pread|fsync|fdatasync|fallocate|ftruncate|unlinkat)\s*\("),
     "FileSystem (common/file_system.h)"),
    (re.compile(r"\bstd\s*::\s*(thread|jthread|async)\b"), "Executor (common/executor.h)"),
    (re.compile(r"\bstd\s*::\s*(recursive_|shared_|timed_)?mutex\b|\bstd\s*::\s*condition_variable"),
     "Mutex and CondVar (common/mutex.h)"),
]
UNORDERED = re.compile(r"\bstd\s*::\s*unordered_(map|set|multimap|multiset)\b")
UNORDERED_ALLOWED = "tests/layers/unordered_allowed.txt"

# --- Sizes in lines: (soft, hard). ---

SIZE_LIMITS = {".h": (300, 450), ".cc": (500, 800)}

# --- Symbols that core libraries may not need. ---

FORBIDDEN_SYMBOLS = [
    (re.compile(r"(^|[\s(<&*])grpc(::|_)"), "gRPC belongs to server, client and ctl"),
    (re.compile(r"(^|[\s(<&*])rocksdb(::|_)"), "RocksDB belongs to store/rocksdb"),
    (re.compile(r"(^|[\s(<&*])(spdlog|prometheus|httplib)::"), "logging and metrics belong to server"),
    (re.compile(r"absl::.*\b(Mutex|CondVar|Notification|BlockingCounter|Now|SleepFor|raw_hash_set)\b"),
     "value types of Abseil only"),
    (re.compile(r"^(socket|bind|connect|listen|accept|accept4|sendto|recvfrom|sendmsg|recvmsg|getaddrinfo)$"),
     "the core has no socket"),
]
OS_SYMBOLS = re.compile(
    r"^((__)?(open|openat|creat|fopen|pread|pwrite|preadv|pwritev|fallocate|posix_fallocate|ftruncate|readdir)(64)?(_2)?"
    r"|fsync|fdatasync|sync_file_range|syncfs|rename|renameat|renameat2|unlink|unlinkat|link|linkat|mkdir|mkdirat"
    r"|opendir|fdopendir|flock|mmap(64)?|clock_gettime|gettimeofday|time|nanosleep|clock_nanosleep|usleep|sleep|poll"
    r"|getrandom|getentropy|rand|random|arc4random|pthread_create"
    r"|std::chrono::.*::now\(\)|std::random_device::.*|std::filesystem::.*|std::(__cxx11::)?basic_[io]?fstream.*"
    r"|std::(__cxx11::)?basic_filebuf.*|std::thread::.*|std::this_thread::.*)$")


class Report(NamedTuple):
    path: str
    line: int
    rule: str
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.text}"


class Include(NamedTuple):
    line: int
    path: str


def without_comments_and_literals(text):
    """The same text with comments, strings and characters blanked; line numbers stay."""
    token = re.compile(
        r'R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<![0-9a-zA-Z_])\'(?:\\.|[^\'\\\n])+\'',
        re.DOTALL)
    return token.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def includes_of(text):
    found = re.finditer(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', text, re.MULTILINE)
    return [Include(text.count("\n", 0, m.start()) + 1, m.group(1) or m.group(2)) for m in found]


def layer_of(path):
    """The layer of a file in the tree, or of an include path of this repository; None for anything else."""
    parts = path.split("/")
    if path.startswith("store/rocksdb/"):
        return "store/rocksdb"
    return parts[0] if len(parts) > 1 and parts[0] in LAYERS else None


def place_of(path):
    """The layer, or tests/<directory>."""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "tests" else layer_of(path)


class Tree:
    """The sources of one checkout, read once."""

    def __init__(self, root):
        self.root = Path(root)
        self.texts = {}
        for top in sorted({name.split("/")[0] for name in LAYERS} | {"tests"}):
            for path in sorted((self.root / top).rglob("*")):
                if path.suffix in SIZE_LIMITS and path.is_file():
                    self.texts[path.relative_to(self.root).as_posix()] = path.read_text(errors="replace")
        self.includes = {path: includes_of(text) for path, text in self.texts.items()}


def check_includes(tree):
    for path, includes in tree.includes.items():
        place = place_of(path)
        layer = LAYERS.get(place)
        for include in includes:
            target = layer_of(include.path)
            if layer and target and target != place and target not in layer.may_include:
                allowed = ", ".join(sorted(layer.may_include)) or "nothing else of this repository"
                yield Report(path, include.line, "layer",
                             f"{place} may not include {include.path}; it may use {allowed}")
            if layer and include.path.startswith("tests/"):
                yield Report(path, include.line, "layer", f"{place} may not include tests; move the code it needs")
            yield from check_generated(path, place, include)
            for pattern, places, instead in LIBRARY_HEADERS:
                if re.match(pattern, include.path) and place not in places:
                    yield Report(path, include.line, "library",
                                 f"<{include.path}> only in {', '.join(sorted(places))}; use {instead}")


def check_generated(path, place, include):
    layer = LAYERS.get(place)
    is_grpc = include.path.endswith(".grpc.pb.h") or include.path.startswith(("grpcpp/", "grpc/"))
    is_messages = not is_grpc and (include.path.endswith(".pb.h") or include.path.startswith("google/protobuf/"))
    if is_grpc:
        allowed = layer.grpc if layer else place.removeprefix("tests/") not in TESTS_WITHOUT_GRPC
        if not allowed:
            yield Report(path, include.line, "grpc",
                         f"{include.path} only in server, client, ctl and their tests; "
                         "take events and return actions, or use a seam such as Upstream")
    elif is_messages and layer and not layer.messages:
        yield Report(path, include.line, "messages",
                     f"{include.path} only in store, primary, replica, server, client, ctl; use common/types.h and bytes")


def check_core(tree):
    allowed_unordered = read_unordered_allowed(tree.root)
    used = set()
    for path, text in tree.texts.items():
        layer = LAYERS.get(place_of(path))
        if not layer or not layer.core:
            continue
        in_common = path.startswith("common/")
        for include in tree.includes[path]:
            if include.path.startswith("absl/") and not ABSEIL_IN_CORE.match(include.path):
                yield Report(path, include.line, "abseil",
                             f"{include.path} is not a value type; use common/mutex.h, common/clock.h or std containers")
            if not in_common and OS_HEADERS.match(include.path):
                instead = OS_HEADER_INSTEAD.get(include.path, "FileSystem (common/file_system.h)")
                yield Report(path, include.line, "os", f"<{include.path}> only in common; use {instead}")
        for number, line in enumerate(without_comments_and_literals(text).split("\n"), 1):
            if not in_common and not line.lstrip().startswith("#"):
                for pattern, instead in OS_TOKENS:
                    match = pattern.search(line)
                    if match:
                        yield Report(path, number, "os", f"{match.group().strip()} only in common; use {instead}")
            match = UNORDERED.search(line)
            if match:
                used.add(path)
                if path not in allowed_unordered:
                    yield Report(path, number, "hash-order",
                                 f"{match.group()}: hash order must not influence behaviour; use std::map or a sorted "
                                 f"vector, or say in {UNORDERED_ALLOWED} why the order is never seen")
    for path, line in allowed_unordered.items():
        if path not in used:
            yield Report(UNORDERED_ALLOWED, line, "hash-order", f"{path} uses no unordered container; remove the line")


def read_unordered_allowed(root):
    """File name -> line number. A line is `path: reason`."""
    allowed = {}
    listing = root / UNORDERED_ALLOWED
    if listing.exists():
        for number, line in enumerate(listing.read_text().splitlines(), 1):
            path, colon, reason = line.partition(":")
            if line.strip() and not line.startswith("#"):
                if not colon or not reason.strip():
                    raise SystemExit(f"{UNORDERED_ALLOWED}:{number}: expected `path: reason`")
                allowed[path.strip()] = number
    return allowed


def check_cycles(tree):
    """Files that include each other. Directories cannot: their rules have no cycle."""
    done, active = set(), []

    def visit(path):
        active.append(path)
        for include in tree.includes[path]:
            if include.path in active:
                loop = active[active.index(include.path):] + [include.path]
                yield Report(path, include.line, "cycle", f"{' -> '.join(loop)}; split what both need into a third file")
            elif include.path in tree.includes and include.path not in done:
                yield from visit(include.path)
        active.pop()
        done.add(path)

    for path in tree.includes:
        if path not in done:
            yield from visit(path)


def check_sizes(tree, notice):
    for path, text in tree.texts.items():
        lines = text.count("\n")
        soft, hard = SIZE_LIMITS[Path(path).suffix]
        if lines > hard:
            yield Report(path, hard + 1, "size", f"{lines} lines, at most {hard}; split it by responsibility")
        elif lines > soft:
            notice(f"note: {path} has {lines} lines; {soft} is the size to stay below")


def check_targets(tree):
    """Every source and test is in a target: a file that nobody compiles proves nothing."""
    lists = {}
    for cmake in tree.root.rglob("CMakeLists.txt"):
        directory = cmake.parent.relative_to(tree.root).as_posix()
        if not directory.startswith("build"):
            text = re.sub(r"#[^\n]*", "", cmake.read_text())
            lists[directory] = set(re.findall(r"[\w./+-]+\.(?:cc|h)\b", text))
            stems = set(re.findall(r"[\w/]+", text))
            lists[directory] |= {stem + ".cc" for stem in stems if stem.endswith("_test")}
    for path in tree.texts:
        if not path.endswith(".cc") and place_of(path).startswith("tests/"):
            continue
        parent = Path(path).parent
        found = False
        while not found and parent.as_posix() != ".":
            relative = Path(path).relative_to(parent).as_posix()
            found = relative in lists.get(parent.as_posix(), set())
            parent = parent.parent
        if not found:
            yield Report(path, 1, "target", f"is in no target; list it in {Path(path).parent.as_posix()}/CMakeLists.txt")


def check_sources(root, notice=lambda text: None):
    tree = Tree(root)
    return [*check_includes(tree), *check_core(tree), *check_cycles(tree), *check_sizes(tree, notice),
            *check_targets(tree)]


def check_libraries(libraries):
    """Undefined symbols of static libraries: what includes cannot show, a wrapper would hide."""
    for library in libraries:
        in_common = Path(library).name == "libtowline_common.a"
        output = subprocess.run(["nm", "--undefined-only", "--demangle", library], check=True, capture_output=True,
                                text=True).stdout
        member = "?"
        for line in output.splitlines():
            if line.endswith(":"):
                member = line.rstrip(":")
                continue
            symbol = line.strip().removeprefix("U ").removeprefix("w ").strip()
            where = f"{Path(library).name}({member})"
            for pattern, reason in FORBIDDEN_SYMBOLS:
                if pattern.search(symbol):
                    yield Report(where, 0, "symbol", f"{symbol}: {reason}")
            if not in_common and OS_SYMBOLS.match(symbol):
                yield Report(where, 0, "symbol", f"{symbol} only in common; use its FileSystem, Clock, Rng or Executor")


# --- Self-test ---

# (file, text, line, rule)
PLANTED = [
    ("wal/planted_a.cc", '#include "slots/slot_table.h"\n', 1, "layer"),
    ("primary/planted_a.cc", '\n#include "replica/puller.h"\n', 2, "layer"),
    ("primary/planted_f.cc", '#include "store/rocksdb/rocksdb_store.h"\n', 1, "layer"),
    ("common/planted_a.cc", '#include "wal/spool.h"\n', 1, "layer"),
    ("client/planted_a.cc", '#include "server/node.h"\n', 1, "layer"),
    ("slots/planted_a.cc", '#include "tests/support/temp_dir.h"\n', 1, "layer"),
    ("replica/planted_a.cc", '#include "towline/v1/kv_service.grpc.pb.h"\n', 1, "grpc"),
    ("tests/primary/planted_b.cc", '#include <grpcpp/grpcpp.h>\n', 1, "grpc"),
    ("wal/planted_b.cc", '#include "towline/v1/change.pb.h"\n', 1, "messages"),
    ("store/planted_a.cc", '#include <rocksdb/db.h>\n', 1, "library"),
    ("tests/store/planted_c.cc", '#include "rocksdb/db.h"\n', 1, "library"),
    ("ctl/planted_a.cc", '#include <spdlog/spdlog.h>\n', 1, "library"),
    ("primary/planted_b.cc", '#include "absl/synchronization/mutex.h"\n', 1, "abseil"),
    ("primary/planted_c.cc", '#include "absl/container/flat_hash_map.h"\n', 1, "abseil"),
    ("wal/planted_c.cc", '#include <fcntl.h>\n', 1, "os"),
    ("wal/planted_d.cc", '#include <sys/stat.h>\n', 1, "os"),
    ("wal/planted_e.cc", '// std::ifstream is fine here\nstd::ifstream in("x");\n', 2, "os"),
    ("slots/planted_b.cc", 'auto t = std::chrono::steady_clock::now();\n', 1, "os"),
    ("slots/planted_c.cc", 'void F() { std::this_thread::sleep_for(x); }\n', 1, "os"),
    ("replica/planted_b.cc", 'std::random_device device;\n', 1, "os"),
    ("replica/planted_c.cc", 'std::mutex lock;\n', 1, "os"),
    ("store/planted_b.cc", 'std::unordered_map<int, int> m;\n', 1, "hash-order"),
    ("common/planted_b.h", '#include "common/planted_c.h"\n', 1, None),
    ("common/planted_c.h", '#include "common/planted_b.h"\n', 1, "cycle"),
    ("wal/planted_f.h", "\n" * 451, 451, "size"),
    ("wal/planted_g.cc", "\n" * 801, 801, "size"),
    ("tests/wal/planted_test.cc", "\n", 1, "target"),
    # Nothing to report: comments, strings, methods of the same name, other people's clocks.
    ("slots/planted_ok.cc", '// std::mutex\nconst char* s = "std::unordered_map fdatasync(";\nint i = file->fsync(1);\n'
                            "std::chrono::microseconds us;\n", 0, "target-only"),
]

PLANTED_LIBRARY_SOURCE = """
#include <time.h>
#include <unistd.h>
namespace grpc { void Start(); }
long F() { timespec t; clock_gettime(CLOCK_REALTIME, &t); fdatasync(1); grpc::Start(); return t.tv_sec; }
"""


def self_test(root):
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for top in sorted({name.split("/")[0] for name in LAYERS} | {"tests"}):
            if (Path(root) / top).exists():
                shutil.copytree(Path(root) / top, copy / top)
        before = set(check_sources(copy))
        for path, text, _, _ in PLANTED:
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_text(text)
        planted = [report for report in check_sources(copy) if report not in before]
        for path, _, line, rule in PLANTED:
            found = {(report.line, report.rule) for report in planted if report.path == path} - {(1, "target")}
            if rule == "target":
                found = {(report.line, report.rule) for report in planted if report.path == path}
            expected = set() if rule in (None, "target-only") else {(line, rule)}
            if found != expected:
                failures.append(f"{path}: expected {sorted(expected)}, reported {sorted(found)}")

        source, library = copy / "planted.cc", copy / "libtowline_wal.a"
        source.write_text(PLANTED_LIBRARY_SOURCE)
        subprocess.run(["c++", "-c", source, "-o", copy / "planted.o"], check=True)
        subprocess.run(["ar", "rc", library, copy / "planted.o"], check=True)
        symbols = " ".join(report.text for report in check_libraries([library]))
        for expected in ("clock_gettime", "fdatasync", "grpc::Start"):
            if expected not in symbols:
                failures.append(f"libtowline_wal.a: undefined {expected} is not reported")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--libraries", nargs="*")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()

    if arguments.self_test:
        problems = self_test(arguments.root)
    elif arguments.libraries is not None:
        problems = list(check_libraries(arguments.libraries))
    else:
        problems = check_sources(arguments.root, notice=print)
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem(s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
