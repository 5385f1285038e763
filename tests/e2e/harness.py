"""Real processes for the end-to-end tests: nodes, clusters, waits on conditions.

Every test gets a directory of its own and loopback ports of its own; nodes that still run at its end are killed, and the
tails of their logs are printed when it failed. Waits poll a condition until a deadline, never for a fixed time.

  TOWLINE_BIN_DIR   where towlined and towctl are
  TOWLINE_LONG=1    long forms: see repetitions()
  TOWLINE_SEED=N    random choices of a failed run again; it is printed at the start
  TOWLINE_SLOW=N    all deadlines times N (sanitizers)
"""

import atexit
import contextlib
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # nothing forks a process that uses gRPC

SOURCE = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = SOURCE / "docs/examples/python"
BIN = pathlib.Path(os.environ.get("TOWLINE_BIN_DIR", SOURCE / "build/bin"))
TOWLINED = str(BIN / "towlined")
TOWCTL = str(BIN / "towctl")
LONG = os.environ.get("TOWLINE_LONG") == "1"
SEED = int(os.environ.get("TOWLINE_SEED") or random.SystemRandom().getrandbits(32))
LOG_TAIL_LINES = 60

sys.path.insert(0, str(EXAMPLES))
import generate_stubs  # noqa: E402

STUBS = tempfile.mkdtemp(prefix="towline-stubs-")
atexit.register(shutil.rmtree, STUBS, ignore_errors=True)
generate_stubs.generate(STUBS, sorted((SOURCE / "proto/grpc").rglob("*.proto")))
sys.path.insert(0, STUBS)

import grpc  # noqa: E402
import towline_client  # noqa: E402
from towline.v1 import admin_service_pb2, admin_service_pb2_grpc  # noqa: E402
from waiting import SLOW, wait_until  # noqa: E402


def repetitions(short, long=20):
    return long if LONG else short


# --- Ports ---

def free_ports(count):
    """Ports that nothing listens on, below the range from which the kernel takes the local ports of connections: a
    client that dials a stopped node on a port of that range can end up connected to itself."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    random_port = random.SystemRandom()
    sockets = []
    with contextlib.ExitStack() as stack:
        while len(sockets) < count:
            candidate = socket.socket()
            stack.callback(candidate.close)
            try:
                candidate.bind(("127.0.0.1", random_port.randrange(10000, lowest) if lowest > 12000 else 0))
            except OSError:
                continue
            sockets.append(candidate)
        return [candidate.getsockname()[1] for candidate in sockets]


# --- One node ---

class Node:
    """One towlined process with its data directory; start it as often as you like."""

    def __init__(self, test, node_id, role="primary", upstream=None, data_dir=None, options=None, environment=None):
        self.test = test
        self.node_id = node_id
        self.role = role
        self.upstream = upstream  # a Node or HOST:PORT
        self.data_dir = pathlib.Path(data_dir or test.directory / node_id)
        # The disk of the machine that tests run on may be nearly full; and a primary whose replicas are stopped on
        # purpose has nobody to wait for.
        self.options = {"disk.guard_ratio": "0", "start.peer_wait": "1s", **(options or {})}
        self.environment = dict(environment or {})
        self.grpc_port, self.http_port = free_ports(2)
        self.process = None
        self.paused = False
        self.log_path = test.directory / f"{node_id}.{len(test.nodes)}.log"
        self._client = None
        self._admin_channel = None
        test.nodes.append(self)

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def command(self):
        command = [TOWLINED, self.role, "--data-dir", str(self.data_dir), "--node-id", self.node_id,
                   "--listen", self.endpoint, "--http", f"127.0.0.1:{self.http_port}"]
        if self.upstream is not None:
            command += ["--upstream", getattr(self.upstream, "endpoint", self.upstream)]
        for name, value in self.options.items():
            command += [f"--{name}", str(value)]
        return command

    def launch(self):
        """Starts the process and returns at once."""
        assert not self.running, f"{self.node_id} runs already"
        self.disconnect()
        self.paused = False
        with open(self.log_path, "ab") as log:
            log.write(f"--- {time.strftime('%H:%M:%S')} start: {' '.join(self.command())}\n".encode())
            log.flush()
            # Ends with us, however we end.
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command()], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env={**os.environ, **self.environment})
        return self

    def start(self, *states, timeout=30.0):
        """Starts the process and waits until it answers and is in one of `states` (by default the healthy one)."""
        self.launch()
        self.wait_state(*(states or self.healthy_states()), timeout=timeout)
        return self

    def healthy_states(self):
        return ("writable",) if self.role == "primary" else ("streaming",)

    def kill9(self):
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.disconnect()
        return self

    def stop(self, timeout=30.0):
        """Clean stop: SIGTERM and exit code 0."""
        self._signal(signal.SIGTERM)
        code = self.wait_exit(timeout)
        assert code == 0, f"{self.node_id}: exit code {code} after SIGTERM"
        return self

    def pause(self):
        """Returns when no thread of it runs any more."""
        self.paused = True
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self):
        self._signal(signal.SIGCONT)
        self.paused = False

    def _signal(self, number):
        assert self.running, f"{self.node_id} does not run (exit code {self.process and self.process.returncode})"
        self.process.send_signal(number)

    def wait_exit(self, timeout=30.0):
        try:
            code = self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.node_id} still runs after {timeout * SLOW:g} s") from None
        self.disconnect()
        return code

    def end(self):
        """For the end of a test: whatever state it is in, it is gone afterwards."""
        if self.running:
            self.process.kill()
            self.process.wait()
        self.disconnect()

    # --- Asking it ---

    def http(self, path, method="GET"):
        """(status code, body) of the HTTP port; OSError if it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10 * SLOW)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"bad HTTP answer: {error!r}") from error
        finally:
            connection.close()

    def status(self):
        code, body = self.http("/status")
        assert code == 200, f"/status: {code} {body}"
        return json.loads(body)

    def try_status(self):
        """The status, or None while the node does not answer. AssertionError if the process is gone."""
        assert self.running, f"{self.node_id} exited with code {self.process.returncode}"
        try:
            return self.status()
        except OSError:
            return None

    def metrics(self):
        """The samples of /metrics: {'towline_term': 1.0, 'towline_slot_state{slot="r1",state="active"}': 1.0, ...}."""
        code, body = self.http("/metrics")
        assert code == 200, f"/metrics: {code} {body}"
        samples = (line.rsplit(" ", 1) for line in body.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def private_bytes(self):
        """Memory of the process that no file backs: heap and stacks."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))

    def wait(self, predicate, what, timeout=30.0):
        """Waits until predicate(status) is true, and returns the status."""
        last = None

        def check():
            nonlocal last
            last = self.try_status()
            return last if last is not None and predicate(last) else None

        return wait_until(check, f"{self.node_id}: {what}", timeout, describe=lambda: summary(last))

    def wait_state(self, *states, timeout=30.0):
        return self.wait(lambda status: status["state"] in states, f"state {' or '.join(states)}", timeout)

    def wait_answers(self, timeout=30.0):
        return self.wait(lambda status: True, "any answer", timeout)

    def wait_applied(self, lsn, timeout=30.0):
        return self.wait(lambda status: status["store"]["applied_lsn"] >= lsn, f"applied LSN {lsn}", timeout)

    def wait_slot(self, name, predicate, what, timeout=30.0):
        """Waits until predicate(slot) is true for the slot of that name; returns the slot."""
        status = self.wait(lambda status: any(predicate(slot) for slot in status["slots"] if slot["name"] == name),
                           f"slot {name}: {what}", timeout)
        return next(slot for slot in status["slots"] if slot["name"] == name)

    @property
    def client(self):
        """towline_client.Client of the running process."""
        if self._client is None:
            self._client = towline_client.Client(self.endpoint, timeout_seconds=30 * SLOW)
        return self._client

    @property
    def admin(self):
        if self._admin_channel is None:
            self._admin_channel = grpc.insecure_channel(self.endpoint)
        return admin_service_pb2_grpc.AdminServiceStub(self._admin_channel)

    def digest(self, at_lsn=0, timeout=30.0):
        """The GetDigest answer: position, digest, keys."""
        request = admin_service_pb2.GetDigestRequest(at_lsn=at_lsn, timeout_ms=int(timeout * SLOW * 1000))
        return self.admin.GetDigest(request, timeout=timeout * SLOW + 5)

    def disconnect(self):
        if self._client is not None:
            self._client.close()
        if self._admin_channel is not None:
            self._admin_channel.close()
        self._client = self._admin_channel = None

    def towctl(self, *arguments, **options):
        return towctl("--endpoint", self.endpoint, *arguments, **options)

    def towctl_json(self, *arguments):
        return json.loads(self.towctl(*arguments, "-o", "json").stdout)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def print_log_tail(self):
        lines = self.log().splitlines()
        print(f"\n=== {self.node_id}: last {LOG_TAIL_LINES} of {len(lines)} log lines ===", file=sys.stderr)
        print("\n".join(lines[-LOG_TAIL_LINES:]), file=sys.stderr)


def summary(status):
    """What a failed wait has to say of a status."""
    if status is None:
        return "no answer"
    keep = ("state", "state_reason", "term", "wal", "store", "upstream", "replicas", "slots", "resync")
    return json.dumps({key: status[key] for key in keep if key in status})


def towctl(*arguments, check=True, stdin=None, text=True, timeout=60.0):
    """Runs towctl to its end. `stdin` is its input, if any."""
    result = subprocess.run([TOWCTL, *map(str, arguments)], input=stdin, capture_output=True, text=text,
                            stdin=subprocess.DEVNULL if stdin is None else None, timeout=timeout * SLOW)
    if check:
        assert result.returncode == 0, f"towctl {' '.join(map(str, arguments))}: exit code {result.returncode}\n" \
            f"{result.stdout}\n{result.stderr}"
    return result


# --- A test with nodes ---

class NodeTest(unittest.TestCase):
    """Base of the tests. self.directory is its own; primary() and replica() make nodes in it."""

    def run(self, result=None):
        failures_before = len(result.failures) + len(result.errors)
        self.nodes = []
        self.random = random.Random(f"{SEED} {self.id()}")
        with tempfile.TemporaryDirectory(prefix="towline-e2e-") as directory:
            self.directory = pathlib.Path(directory)
            try:
                super().run(result)
            finally:
                for node in self.nodes:
                    node.end()
                if len(result.failures) + len(result.errors) > failures_before:
                    for node in self.nodes:
                        node.print_log_tail()
        return result

    def primary(self, node_id="p1", **arguments):
        return Node(self, node_id, "primary", **arguments)

    def replica(self, node_id, upstream, **arguments):
        return Node(self, node_id, "replica", upstream, **arguments)

    def cluster(self, replicas=2, primary_options=None, replica_options=None):
        """A started primary with started replicas that stream: [p1, r1, r2, ...]."""
        primary = self.primary(options=primary_options).start()
        nodes = [self.replica(f"r{i + 1}", primary, options=replica_options).launch() for i in range(replicas)]
        for node in nodes:
            node.wait_state("streaming")
        self.wait_members(primary, replicas + 1)
        return [primary, *nodes]

    def wait_members(self, node, count):
        """Behind the records that take new replicas into the members a primary writes nothing by itself."""
        node.wait(lambda status: len(status["members"]) == count, f"{count} members")

    def wait_caught_up(self, primary, *replicas, timeout=60.0):
        """Waits until the replicas have applied what is durable on the primary now; returns that LSN."""
        lsn = primary.status()["wal"]["durable_lsn"]
        for node in replicas:
            node.wait_applied(lsn, timeout)
        return lsn

    def assert_same_data(self, primary, *replicas, timeout=60.0):
        """All nodes hold the same state at one LSN. No writes may be under way, but for the few records that the
        primary makes by itself (members, expiry). Returns the primary's digest."""
        deadline = time.monotonic() + timeout * SLOW
        while True:
            self.wait_caught_up(primary, *replicas, timeout=timeout)
            try:
                expected = primary.digest()
                actual = [node.digest(at_lsn=expected.position.lsn, timeout=timeout) for node in replicas]
                break
            except grpc.RpcError as error:
                detail = towline_client.error_of(error)
                if detail is None or detail.reason != "position_passed" or time.monotonic() > deadline:
                    raise
        for node, digest in zip(replicas, actual):
            self.assertEqual((digest.position.lsn, digest.position.chain, digest.keys, digest.digest),
                             (expected.position.lsn, expected.position.chain, expected.keys, expected.digest),
                             f"{node.node_id} differs from {primary.node_id}")
        return expected

    def slot(self, node, name):
        return next((slot for slot in node.status()["slots"] if slot["name"] == name), None)


def main():
    for program in (TOWLINED, TOWCTL):
        if not os.access(program, os.X_OK):
            sys.exit(f"{program} is missing: build the project, or set TOWLINE_BIN_DIR")
    print(f"TOWLINE_SEED={SEED}{' TOWLINE_LONG=1' if LONG else ''}", flush=True)
    unittest.main(verbosity=2)
