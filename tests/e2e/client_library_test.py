#!/usr/bin/python3
"""The installed C++ client: a project of its own is built against it and runs against real nodes."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import harness
from harness import SLOW, SOURCE, NodeTest, repetitions
from waiting import wait_until

BUILD = pathlib.Path(os.environ.get("TOWLINE_BUILD_DIR", SOURCE / "build/release"))
CONSUMER = SOURCE / "tests/client/consumer"
SECONDS = 6 * SLOW


def run(*command, timeout=300):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout * SLOW)
    assert result.returncode == 0, f"{command}: exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


class Writer:
    """A running writer of the consumer project; collects what it prints."""

    def __init__(self, program, endpoints, kind, seconds):
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", program, ",".join(endpoints), kind, str(int(seconds))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.thread = threading.Thread(target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")))
        self.thread.start()

    def wait_progress(self):
        seen = len(self.lines)
        wait_until(lambda: len(self.lines) > seen or self.process.poll() is not None, "the writer goes on", 60)

    @property
    def running(self):
        return self.process.poll() is None

    def finish(self):
        """What it wrote, and what it complained of."""
        code = self.process.wait(120 * SLOW)
        self.thread.join()
        errors = self.process.stderr.read()
        self.process.stderr.close()
        self.process.stdout.close()
        assert code == 0, f"exit code {code}: {errors}"
        return int(self.lines[-1].split()[1]), errors


class ClientLibraryTest(NodeTest):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.mkdtemp(prefix="towline-consumer-")
        cls.addClassCleanup(shutil.rmtree, cls.scratch, ignore_errors=True)
        prefix, build = f"{cls.scratch}/prefix", f"{cls.scratch}/build"
        run("cmake", "--install", BUILD, "--prefix", prefix, "--component", "client")
        flags = os.environ.get("TOWLINE_CONSUMER_FLAGS", "")
        run("cmake", "-S", CONSUMER, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCMAKE_CXX_FLAGS={flags}",
            "-DCMAKE_CXX_CLANG_TIDY=")
        run("cmake", "--build", build)
        cls.programs = pathlib.Path(build)

    def program(self, name):
        return str(self.programs / name)

    def messages(self, node):
        """Payloads of the writer's messages, in the order of the log."""
        lines = node.towctl("tail", "--from", "1", "--until-current", "-o", "json", timeout=120).stdout.splitlines()
        records = (json.loads(line) for line in lines)
        return [int(operation["message"]["payload"]) for record in records for operation in record.get("operations", [])
                if "message" in operation]

    def test_the_example_of_the_guide_runs(self):
        version = run(self.program("hello"))
        self.assertRegex(version, r"^towline client \d+\.\d+\.\d+\n$")
        p1, r1 = self.cluster(replicas=1)
        for endpoint in (p1.endpoint, r1.endpoint, f"127.0.0.1:1,{r1.endpoint}"):
            said = run(self.program("hello"), endpoint)
            self.assertRegex(said, rf"^hello from {p1.endpoint} at t1\.[A-Za-z0-9_-]{{64}}\n$")
        token = said.split()[-1]
        self.assertEqual(r1.towctl("get", "greeting", "--at", token, "--wait", "20s").stdout, "hello")

    def test_a_replica_shows_what_was_written_before(self):
        p1, r1 = self.cluster(replicas=1)
        self.assertEqual(run(self.program("session"), p1.endpoint, r1.endpoint, 200), "read every write\n")

    def check_bench_over_a_switchover(self, mode):
        p1, r1 = self.cluster(replicas=1)
        ends = []
        bench = threading.Thread(target=lambda: ends.append(harness.towctl(
            "--endpoint", f"{p1.endpoint},{r1.endpoint}", "bench", "--library", "--mode", mode, "--in-flight", "8",
            "--warmup", "100ms", "--seconds", f"{int(8 * SLOW)}s", "--no-ceiling", "-o", "json", check=False,
            timeout=120.0)))
        bench.start()
        written = p1.status()["wal"]["durable_lsn"] + 100
        p1.wait(lambda status: status["wal"]["durable_lsn"] > written or ends, "the bench writes")
        p1.towctl("switchover", "--to", "r1")
        switched = r1.wait_state("writable")["wal"]["durable_lsn"]
        r1.wait(lambda status: status["wal"]["durable_lsn"] > switched + 100 or ends, "the bench goes on")
        bench.join()
        self.assertEqual(ends[0].returncode, 0, ends[0].stderr)
        report = json.loads(ends[0].stdout)
        self.assertEqual((report["errors"], report["primary_moved"]), (0, True), report)

    def test_bench_follows_a_switchover(self):
        self.check_bench_over_a_switchover("unary")

    def test_bench_with_a_batcher_follows_a_switchover(self):
        self.check_bench_over_a_switchover("stream")

    def check_kills(self, kind):
        p1, r1 = self.cluster(replicas=1)
        writer = Writer(self.program("writer"), [r1.endpoint, p1.endpoint], kind, SECONDS * repetitions(1, 10))
        kills = 0
        while kills < repetitions(3, 20) and writer.running:
            writer.wait_progress()
            if not writer.running:
                break
            p1.kill9()
            kills += 1
            p1.start()
        count, errors = writer.finish()
        self.assertEqual(errors, "")
        self.assertGreater(kills, 0)
        messages = self.messages(p1)
        self.assertEqual(sorted(messages), list(range(count)))
        self.assertEqual(messages, sorted(messages), "the order of the log")
        print(f"{kind}: {count} records, {kills} kills", flush=True)

    def test_single_writes_over_kills_of_the_primary(self):
        self.check_kills("unary")

    def test_a_batcher_over_kills_of_the_primary(self):
        self.check_kills("batch")


if __name__ == "__main__":
    harness.main()
