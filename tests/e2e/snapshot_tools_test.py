#!/usr/bin/python3
"""towctl snapshot save, snapshot load --data-dir, and bootstrap."""

import base64
import contextlib
import json
import socket
import subprocess
import threading
import unittest

import harness
import redis_server
from harness import NodeTest, TOWCTL, towctl
from redis_server import RedisServer
from relay import Relay
from workload import StreamWriter, fill

FAR_FUTURE_MS = 4_000_000_000_000  # the year 2096


def text(data):
    return base64.b64encode(data).decode()


class CuttingRelay(Relay):
    """Ends a connection when so many bytes have come down on it, so many times."""

    def __init__(self, target, cut_after, cuts):
        self._cut_after = cut_after
        self._cuts = cuts
        super().__init__(target)

    def _copy(self, direction, source, sink):
        if direction == "up":
            super()._copy(direction, source, sink)
            return
        left = self._cut_after
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                left -= len(data)
                if left < 0 < self._cuts:
                    self._cuts -= 1
                    break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class SnapshotToolsTest(NodeTest):
    def save(self, node, path, *options, code=0):
        """(summary, error) of a save that ends with exit code `code`."""
        result = towctl("--endpoint", getattr(node, "endpoint", node), "snapshot", "save", path, "-o", "json", *options,
                        check=False, timeout=120)
        self.assertEqual(result.returncode, code, f"{result.stdout}\n{result.stderr}")
        return (json.loads(result.stdout) if result.stdout else None,
                json.loads(result.stderr)["error"] if result.stderr else None)

    def load(self, path, data_dir, *options, node_id="n1", code=0):
        result = towctl("snapshot", "load", path, "--data-dir", data_dir, "--node-id", node_id, "-o", "json", *options,
                        check=False)
        self.assertEqual(result.returncode, code, f"{result.stdout}\n{result.stderr}")
        return (json.loads(result.stdout) if result.stdout else None,
                json.loads(result.stderr)["error"] if result.stderr else None)

    def verify(self, path):
        return json.loads(towctl("snapshot", "verify", path, "-o", "json").stdout)

    def fill_all_kinds(self, node):
        """Keys and values of any bytes, a fifth of them with an expiry. {key: (value, expiry)}."""
        lines, expected = [], {}
        for index in range(3000):
            key = b"fixed/%06d" % index if index % 10 else b"fixed/" + self.random.randbytes(8) + b"%d" % index
            value = self.random.choice((b"", b"%d" % self.random.randrange(-1 << 40, 1 << 40), b"text " * 50,
                                        self.random.randbytes(self.random.randrange(2000))))
            expiry = FAR_FUTURE_MS + index if index % 5 == 0 else 0
            expected[key] = (value, expiry)
            entry = {"key_base64": text(key), "value_base64": text(value)}
            lines.append(json.dumps({**entry, "expire_at_ms": expiry} if expiry else entry))
        node.towctl("import", "-", stdin="\n".join(lines) + "\n")
        return expected

    def strings_of(self, node, prefix=b""):
        return {entry.key: (entry.value, entry.expire_at_ms) for entry in node.client.scan()
                if entry.key.startswith(prefix)}

    def assert_equal_data(self, actual, expected):
        self.assertEqual(len(actual), len(expected))
        different = [key for key, entry in expected.items() if actual.get(key) != entry]
        self.assertEqual(different[:5], [], f"{len(different)} keys differ")

    def export(self, node):
        """Keys, values and expiries, without what is different in another cluster."""
        lines = [json.loads(line) for line in node.towctl("export").stdout.splitlines()]
        keep = ("key", "key_base64", "value", "value_base64", "expire_at_ms")
        return [{name: line[name] for name in keep if name in line} for line in lines]

    # --- save ---

    @unittest.skipUnless(redis_server.installed(), "Redis is not installed")
    def test_a_file_saved_under_writes_is_what_redis_loads(self):
        p1, r1 = self.cluster(replicas=1)
        expected = self.fill_all_kinds(p1)
        for node in (p1, r1):
            path = self.directory / f"{node.node_id}.rdb"
            with StreamWriter(p1, prefix="moving/", value_bytes=100, pace_seconds=0.001) as writer:
                writer.wait_acked(200)
                summary, _ = self.save(node, path)
                writer.stop()
            self.assertFalse((self.directory / f"{node.node_id}.rdb.partial").exists())
            report = self.verify(path)
            for name in ("keys", "bytes"):
                self.assertEqual(summary[name], report[name])
            self.assertEqual(summary["snapshot"], report["snapshot"])
            self.assertEqual(summary["snapshot"]["node_id"], node.node_id)
            self.assertEqual(summary["bytes"], path.stat().st_size)
            check = subprocess.run(["redis-check-rdb", str(path)], capture_output=True, check=False)
            self.assertEqual(check.returncode, 0, check.stdout[-2000:])
            redis = self.redis_with(path, f"redis-{node.node_id}")
            strings = redis.strings()
            self.assertEqual(len(strings), summary["keys"])
            fixed = {key: entry for key, entry in strings.items() if key.startswith(b"fixed/")}
            self.assert_equal_data(fixed, expected)

    def redis_with(self, path, name):
        """A Redis server that began with this file."""
        server = RedisServer(self.directory / name, dump=path)
        self.addCleanup(server.stop)
        return server

    def test_the_digest_of_the_file_is_that_of_the_node_at_its_lsn(self):
        p1, r1 = self.cluster(replicas=1)
        self.fill_all_kinds(p1)
        lsn = self.wait_caught_up(p1, r1)
        for node in (p1, r1):
            summary, _ = self.save(node, self.directory / f"{node.node_id}.rdb")
            digest = node.digest(at_lsn=lsn)
            self.assertEqual(summary["snapshot"]["position"]["lsn"], lsn)
            self.assertEqual((summary["snapshot"]["digest"], summary["keys"]), (digest.digest, digest.keys))

    def test_a_cut_stream_goes_on_where_it_was(self):
        p1 = self.primary(options={"bootstrap.rate_limit": "8MiB"}).start()
        fill(p1, 2000, value_bytes=10_000)
        relay = CuttingRelay(p1.endpoint, cut_after=6 << 20, cuts=2)
        self.addCleanup(relay.close)
        path = self.directory / "cut.rdb"
        summary, _ = self.save(relay, path)
        self.assertEqual(summary["resumes"], 2)
        self.assertEqual(summary["restarts"], 0)
        self.assertEqual(self.verify(path)["snapshot"], summary["snapshot"])
        self.assertEqual(summary["snapshot"]["digest"], p1.digest().digest)

    def test_a_restart_of_the_node_begins_the_file_again(self):
        p1 = self.primary(options={"bootstrap.rate_limit": "4MiB"}).start()
        fill(p1, 2000, value_bytes=10_000)
        p1.stop().start()  # the store is flushed: the size of the stream can be estimated
        path = self.directory / "again.rdb"
        process = subprocess.Popen([TOWCTL, "--endpoint", p1.endpoint, "snapshot", "save", str(path)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        p1.wait(lambda status: any(sent["bytes"] > 1 << 20 for sent in status["snapshots"]), "it sends")
        table = p1.towctl("status").stdout
        self.assertRegex(table, r"sends     snapshot at lsn \d+ to a file: \d+ keys, .* of about .* \(\d+ %\), ")
        p1.kill9().start()
        out, err = process.communicate(timeout=120 * harness.SLOW)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn("begins the file again (1 of 3)", err)
        self.assertIn("begun again 1 times", out)
        self.assertEqual(self.verify(path)["snapshot"]["digest"], p1.digest().digest)

    def test_a_full_house_is_waited_for(self):
        p1 = self.primary(options={"bootstrap.rate_limit": "4MiB", "bootstrap.max_sessions": "1"}).start()
        fill(p1, 1000, value_bytes=10_000)
        results = {}

        def run(name):
            results[name] = p1.towctl("snapshot", "save", self.directory / name, check=False, timeout=120)

        threads = [threading.Thread(target=run, args=(name,)) for name in ("a.rdb", "b.rdb")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([result.returncode for result in results.values()], [0, 0], results)
        self.assertIn("waiting for a place", "".join(result.stderr for result in results.values()))

    def test_wrong_targets_of_save(self):
        p1 = self.primary().start()
        fill(p1, 10)
        path = self.directory / "taken.rdb"
        path.write_text("mine")
        _, error = self.save(p1, path, code=4)
        self.assertEqual(error["reason"], "file_exists")
        self.assertEqual(path.read_text(), "mine")
        self.save(p1, path, "--force")
        self.assertEqual(self.verify(path)["keys"], 10)
        _, error = self.save(p1, "-", code=2)
        self.assertIn("standard output", error["message"])
        self.save(p1, self.directory, "--force", code=2)
        self.save(p1, self.directory / "no/such/directory.rdb", code=1)
        self.save("127.0.0.1:1", self.directory / "nobody.rdb", code=1)
        self.assertEqual(sorted(self.directory.glob("*.partial")), [])

    def test_a_failed_write_leaves_no_file(self):
        p1 = self.primary().start()
        fill(p1, 1000, value_bytes=10_000)
        path = self.directory / "large.rdb"
        # A limit on file sizes is the error that needs no disk of its own; disk_full_test.py has a full one.
        command = ["prlimit", "--fsize=2097152", "env", "--ignore-signal=XFSZ", TOWCTL, "--endpoint", p1.endpoint,
                   "snapshot", "save", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("large.rdb.partial", result.stderr)
        self.assertIn("no file was left", result.stderr)
        self.assertEqual(sorted(self.directory.glob("large*")), [])

    # --- load --data-dir ---

    def test_a_saved_file_becomes_a_new_cluster(self):
        p1 = self.primary().start()
        expected = self.fill_all_kinds(p1)
        path = self.directory / "backup.rdb"
        saved, _ = self.save(p1, path)
        data_dir = self.directory / "new"
        summary, _ = self.load(path, data_dir)
        self.assertEqual((summary["keys"], summary["expired"]), (len(expected), 0))
        self.assertEqual(summary["position"]["lsn"], saved["snapshot"]["position"]["lsn"])
        self.assertNotEqual(summary["cluster_id"], saved["snapshot"]["cluster_id"])
        n1 = self.primary("n1", data_dir=data_dir).start()
        status = n1.status()
        self.assertEqual(status["cluster_id"], summary["cluster_id"])
        self.assertEqual(self.export(n1), self.export(p1))
        # The modified LSNs came too: equal digests at the same LSN.
        self.assertEqual(n1.digest().digest, saved["snapshot"]["digest"])

        n1.towctl("put", "after", "the load")
        r1 = self.replica("r1", n1).start(timeout=60)
        self.assertEqual(n1.status()["resync"]["by_reason"].get("full/new_replica"), 1)
        self.assert_same_data(n1, r1)
        n1.kill9().start()
        self.assert_same_data(n1, r1)
        self.assert_equal_data(self.strings_of(n1), {**expected, b"after": (b"the load", 0)})

        # A second load of the same file is another cluster.
        again, _ = self.load(path, self.directory / "second")
        self.assertNotEqual(again["cluster_id"], summary["cluster_id"])
        self.assertNotEqual(again["position"]["term_id"], summary["position"]["term_id"])
        self.assertNotEqual(again["position"]["chain"], summary["position"]["chain"])

    @unittest.skipUnless(redis_server.installed(), "Redis is not installed")
    def test_a_dump_of_redis_becomes_a_new_cluster(self):
        redis = RedisServer(self.directory / "redis")
        self.addCleanup(redis.stop)
        expiries = [("PXAT", FAR_FUTURE_MS + i) if i % 3 == 0 else () for i in range(20_000)]
        redis.pipeline([("SET", f"key{i}", self.random.randbytes(50), *expiry) for i, expiry in enumerate(expiries)])
        redis("RPUSH", "list", "a")
        redis("SELECT", 3)
        redis.pipeline([("SET", f"three{i}", i) for i in range(100)])
        expected = redis.strings(0)
        path = redis.save()
        data_dir = self.directory / "n1"
        _, error = self.load(path, data_dir, code=4)
        self.assertEqual(error["reason"], "not_loadable")
        self.assertFalse(data_dir.exists())
        summary, _ = self.load(path, data_dir, "--db", "0", "--skip-other-types")
        self.assertEqual((summary["keys"], summary["skipped"], summary["keys_in_other_databases"]),
                         (len(expected), {"list": 1}, 100))
        self.assertEqual(summary["position"]["lsn"], 1)
        n1 = self.primary("n1", data_dir=data_dir).start()
        self.assert_equal_data(self.strings_of(n1), expected)
        fill(n1, 100, prefix="more/")
        r1 = self.replica("r1", n1).start(timeout=60)
        self.assertEqual(n1.status()["resync"]["by_reason"].get("full/new_replica"), 1)
        self.assert_same_data(n1, r1)

    def test_expired_keys_go_and_later_ones_expire(self):
        p1 = self.primary().start()
        p1.towctl("put", "short", "x", "--ttl", "3s")
        p1.towctl("put", "stays", "x")
        path = self.directory / "expiring.rdb"
        self.save(p1, path)
        self.load(path, self.directory / "n1")
        n1 = self.primary("n1", data_dir=self.directory / "n1").start()
        n1.wait(lambda status: [entry.key for entry in n1.client.scan()] == [b"stays"], "the expiry index came too")

    def test_directories_that_are_not_taken(self):
        p1 = self.primary().start()
        fill(p1, 10)
        path = self.directory / "good.rdb"
        self.save(p1, path)
        _, error = self.load(path, p1.data_dir, code=4)
        self.assertEqual(error["reason"], "data_dir_not_empty")
        other = self.directory / "other"
        other.mkdir()
        (other / "notes.txt").write_text("mine")
        _, error = self.load(path, other, code=4)
        self.assertIn("notes.txt", error["message"])
        self.assertEqual([entry.name for entry in other.iterdir()], ["notes.txt"])
        locked = self.directory / "locked"
        locked.mkdir()
        holder = subprocess.Popen(["flock", str(locked / "LOCK"), "sh", "-c", "echo held; read line"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertEqual(holder.stdout.readline(), b"held\n")
        _, error = self.load(path, locked, code=4)
        self.assertEqual(error["reason"], "locked")
        holder.communicate(b"\n")
        (locked / "lost+found").mkdir()
        self.load(path, locked)
        bad = self.directory / "bad.rdb"
        bad.write_bytes(path.read_bytes()[:-3])
        self.load(bad, self.directory / "from-bad", code=1)
        self.assertFalse((self.directory / "from-bad").exists())
        self.load(path, self.directory / "x", node_id="Not A Name", code=2)
        for options in (("--data-dir", self.directory / "x"), ("--node-id", "n1"), ("--record-bytes", "1MiB")):
            self.assertEqual(towctl("snapshot", "load", path, *options, check=False).returncode, 2, options)
        # The node id is that of the directory.
        wrong = self.primary("p9", data_dir=locked).launch()
        self.assertEqual(wrong.wait_exit(), 2)

    # --- bootstrap ---

    def test_bootstrap_is_watched_to_its_end(self):
        p1, r1 = self.cluster(replicas=1, primary_options={"bootstrap.rate_limit": "5MiB"})
        fill(p1, 2000, value_bytes=10_000)
        self.wait_caught_up(p1, r1)
        result = p1.towctl("bootstrap", "r1", "--watch", timeout=120)
        self.assertIn(f"r1 at {r1.endpoint} is asked to load a snapshot", result.stdout)
        self.assertIn("r1 streams again after", result.stdout)
        self.assertRegex(result.stderr, r"(?m)^r1  loading, (\d+ keys, )?.* \(\d+ %\)")
        self.assertEqual(p1.status()["resync"]["by_reason"].get("full/requested"), 1)
        self.assert_same_data(p1, r1)

        # By address, and through a restart of the replica.
        process = subprocess.Popen([TOWCTL, "bootstrap", r1.endpoint, "--watch", "-o", "json"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        r1.wait(lambda status: status["bootstrap"] is not None and status["bootstrap"]["bytes"] > 0, "the load runs")
        self.assertRegex(r1.towctl("status").stdout, r"bootstrap requested: \w+, (\d+ keys, )?.* \(\d+ %\).*, \d+ resumes")
        again = r1.towctl_json("bootstrap", r1.endpoint)
        self.assertIs(again["already_running"], True)
        r1.kill9().launch()
        out, err = process.communicate(timeout=120 * harness.SLOW)
        self.assertEqual(process.returncode, 0, err)
        summary = json.loads(out)
        self.assertEqual((summary["already_running"], summary["ended"]), (False, "streaming"))
        self.assertEqual(summary["bootstrap"]["reason"], "requested")  # what was seen last may be that it waits
        self.assertEqual(r1.status()["state"], "streaming")
        self.assert_same_data(p1, r1)

    def test_who_cannot_be_asked(self):
        p1, r1 = self.cluster(replicas=1)
        for node in ("p1", p1.endpoint):
            refused = p1.towctl("bootstrap", node, "-o", "json", check=False)
            self.assertEqual(refused.returncode, 4)
            self.assertEqual(json.loads(refused.stderr)["error"]["reason"], "not_replica")
        unknown = p1.towctl("bootstrap", "r9", check=False)
        self.assertEqual(unknown.returncode, 1)
        self.assertIn("knows no address of node r9", unknown.stderr)
        self.assertEqual(p1.towctl("bootstrap", "R 9", check=False).returncode, 2)
        self.assertEqual(p1.towctl("bootstrap", check=False).returncode, 2)
        self.assertEqual(p1.towctl("bootstrap", "127.0.0.1:1", check=False).returncode, 1)


if __name__ == "__main__":
    harness.main()
