"""What the tests of the re-bootstrap share: writers that go on, waits on a load, counters over the lives of a node."""

import re
import shutil
import threading

import grpc
from harness import NodeTest, SLOW, wait_until
import towline_client  # the stubs are on the path once harness is imported
from towline.v1 import admin_service_pb2

MIB = 1 << 20
# A log that soon forgets what no slot holds, so that whoever is new loads a snapshot.
SMALL_LOG = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "bootstrap.replay_max_bytes": "1MiB",
             "store.flush_bytes": "2MiB", "store.flush_interval": "1s"}


def progress(node):
    """The node's own progress in a load, None while none runs or it does not answer."""
    status = node.try_status()
    return None if status is None else status.get("bootstrap")


class Churn:
    """Deletes, overwrites and lets expire what `fill` wrote, in no order, until it is stopped. It goes on over restarts
    of the primary."""

    def __init__(self, node, records, rng, prefix="fill/"):
        self._node = node
        self._records = records
        self._rng = rng
        self._prefix = prefix.encode()
        self.written = 0
        self.error = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _operation(self):
        key = self._prefix + b"%08d" % self._rng.randrange(self._records)
        kind = self._rng.randrange(4)
        if kind == 0:
            return towline_client.delete(key)
        value = b"churn %d " % self._rng.getrandbits(32) + b"c" * self._rng.randrange(300)
        return towline_client.put(key, value, ttl_ms=self._rng.randrange(1, 3000) if kind == 1 else 0)

    def _run(self):
        client = towline_client.Client(self._node.endpoint, timeout_seconds=10 * SLOW)
        try:
            while not self._stop.wait(0.001):
                try:
                    client.write(*(self._operation() for _ in range(4)))
                    self.written += 1
                except (grpc.RpcError, towline_client.TowlineError):
                    self._stop.wait(0.05)  # the node is away, or not writable yet
                    client.reconnect()
        except Exception as error:  # for the thread that waits for us
            self.error = error
        finally:
            client.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        self._thread.join(60 * SLOW)
        if kind is None and self.error:
            raise self.error


class Totals:
    """Counters of a node over all its lives: kill it through kill9 here."""

    def __init__(self, node):
        self._node = node
        self._ended = {}  # of lives that are over

    def _add(self, samples):
        total = dict(self._ended)
        for name, value in samples.items():
            total[name] = total.get(name, 0) + value
        return total

    def kill9(self):
        self._ended = self._add(self._node.metrics())
        self._node.kill9()

    def get(self, name):
        return self._add(self._node.metrics() if self._node.running else {}).get(f"towline_{name}", 0)

    def full_resyncs(self):
        return self.get("resync_full_total")


class BootstrapTest(NodeTest):
    def forget(self, node):
        """The next start of the node is that of an empty one."""
        shutil.rmtree(node.data_dir, ignore_errors=True)

    def request(self, node):
        """Asks a replica to load a snapshot though its log would do."""
        return node.admin.Bootstrap(admin_service_pb2.BootstrapRequest(), timeout=30 * SLOW)

    def wait_taken(self, node, bytes_taken, timeout=60.0):
        """Waits until so much of the snapshot was taken, or all of it and the log is replayed, or the load is over. Returns
        the progress, None in the last case."""
        last = None

        def reached():
            nonlocal last
            status = node.try_status()
            if status is None:
                return None
            last = status.get("bootstrap")
            if last is None:
                return ("over", None) if status["state"] == "streaming" else None
            return ("running", last) if last["bytes"] >= bytes_taken or last["phase"] == "replaying" else None

        return wait_until(reached, f"{node.node_id}: {bytes_taken} bytes of a snapshot", timeout,
                          describe=lambda: last)[1]

    def wait_pruned(self, node):
        return node.wait(lambda status: status["wal"]["first_lsn"] > 1, "the start of the log is gone")

    def generations(self, node):
        """Names of the generation directories."""
        return sorted(path.name for path in (node.data_dir / "gen").iterdir())

    def assert_one_generation(self, node):
        wait_until(lambda: len(self.generations(node)) == 1, f"{node.node_id}: the old generation is removed",
                   describe=lambda: self.generations(node))

    def finished(self, node):
        """The fields of the node's loads that were finished, by its log."""
        lines = re.findall(r" bootstrap_finished (.*)", node.log())
        return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]
