#!/usr/bin/python3
"""towctl snapshot verify and load, with dumps that a real Redis server writes."""

import json
import time
import unittest

import harness
import redis_server
from harness import NodeTest, towctl, wait_until
from redis_server import RedisServer
from relay import Relay

FAR_FUTURE_MS = 4_000_000_000_000  # the year 2096
KEYS = 100_000


@unittest.skipUnless(redis_server.installed(), "Redis is not installed")
class RedisDumpTest(NodeTest):
    def redis(self, *options):
        server = RedisServer(self.directory / "redis", *options)
        self.addCleanup(server.stop)
        return server

    def verify(self, path):
        return json.loads(towctl("snapshot", "verify", path, "-o", "json").stdout)

    def load(self, node, path, *options, code=0):
        """(summary, error) of a load that ends with exit code `code`."""
        result = towctl("--endpoint", getattr(node, "endpoint", node), "snapshot", "load", path, "-o", "json", *options,
                        check=False)
        self.assertEqual(result.returncode, code, f"{result.stdout}\n{result.stderr}")
        summary = json.loads(result.stdout) if result.stdout else None
        return summary, json.loads(result.stderr)["error"] if result.stderr else None

    def assert_holds(self, node, expected):
        """The node's keys, values and expiries are `expected`, as RedisServer.strings gives them."""
        actual = {entry.key: (entry.value, entry.expire_at_ms) for entry in node.client.scan()}
        self.assertEqual(len(actual), len(expected))
        different = [key for key, entry in expected.items() if actual.get(key) != entry]
        self.assertEqual(different[:5], [], f"{len(different)} keys differ")

    def fill_strings(self, redis, count):
        commands = []
        for index in range(count):
            key = b"key:%d" % index if index % 10 else bytes(self.random.choices(range(256), k=8)) + b"%d" % index
            value = self.random.choice((
                b"%d" % self.random.randrange(-1 << 40, 1 << 40), b"%d" % self.random.choice((-129, -128, 127, 128, 32768)),
                b"compressible " * self.random.randrange(1, 30), self.random.randbytes(self.random.randrange(200)), b""))
            expiry = ("PXAT", FAR_FUTURE_MS + index) if index % 5 == 0 else ()
            commands.append(("SET", key, value, *expiry))
        for size in (63, 64, 16383, 16384, 65535, 65536, (1 << 20) - 1, 1 << 20):
            commands.append(("SET", f"random:{size}", self.random.randbytes(size)))
            commands.append(("SET", f"run:{size}", b"r" * size))
        for number in (-1 << 63, (1 << 63) - 1, -1 << 31, (1 << 31) - 1, 1 << 31, -32768, 32767, 0, "007", "+1", "1e3"):
            commands.append(("SET", f"number:{number}", number))
        commands.append(("SET", b"k" * 65536, "the longest key"))
        self.assertEqual(set(redis.pipeline(commands)), {b"OK"})

    def test_strings_of_all_kinds_come_over(self):
        redis = self.redis()
        self.fill_strings(redis, KEYS)
        expected = redis.strings()
        expiring = sum(1 for _, expiry in expected.values() if expiry)
        path = redis.save()

        report = self.verify(path)
        self.assertEqual((report["keys"], report["strings"], report["expiring"], report["checksum"]),
                         (len(expected), len(expected), expiring, "valid"))
        self.assertEqual(report["key_bytes"], sum(map(len, expected)))
        self.assertEqual(report["value_bytes"], sum(len(value) for value, _ in expected.values()))
        self.assertEqual(report["bytes"], path.stat().st_size)
        self.assertEqual(report["databases"],
                         [{"db": 0, "keys": len(expected), "strings": len(expected), "expiring": expiring}])
        self.assertTrue(report["written_by"].startswith("Redis "))

        p1, r1 = self.cluster(replicas=1)
        p1.towctl("put", "number:0", "to be overwritten")
        summary, _ = self.load(p1, path)
        self.assertEqual((summary["ended"], summary["keys"], summary["expired"], summary["skipped"]),
                         ("end_of_file", len(expected), 0, {}))
        self.assertEqual(summary["bytes"], report["key_bytes"] + report["value_bytes"])
        self.assertEqual(summary["position"]["lsn"], p1.status()["wal"]["durable_lsn"])
        self.assert_holds(p1, expected)
        self.assert_same_data(p1, r1)

        # Again, uncompressed: the same keys, the same values.
        redis("CONFIG", "SET", "rdbcompression", "no")
        p1.towctl("put", "stays", "as it is")
        self.load(p1, redis.save())
        self.assert_holds(p1, {**expected, b"stays": (b"as it is", 0)})

    def fill_other_types(self, redis):
        """Every type, in its small and its large encodings. {kind: number}."""
        commands = [("CONFIG", "SET", "list-max-listpack-size", "128"),
                    ("RPUSH", "list:small", "a", "1", "-70000"),
                    ("RPUSH", "list:large", *range(2000)),
                    ("RPUSH", "list:plain", b"p" * (1 << 20), "x"),
                    ("SADD", "set:intset", *range(100)),
                    ("SADD", "set:large", *(f"member{i}" for i in range(1000))),
                    ("ZADD", "zset:small", "1.5", "a", "-inf", "b", "+inf", "c"),
                    ("ZADD", "zset:large", *(x for i in range(1000) for x in (i / 7, f"member{i}"))),
                    ("HSET", "hash:small", "field", "value", "number", "12345"),
                    ("HSET", "hash:large", *(x for i in range(1000) for x in (f"field{i}", "v" * 100))),
                    ("XGROUP", "CREATE", "stream:groups", "g1", "0", "MKSTREAM"),
                    ("XGROUP", "CREATE", "stream:groups", "g2", "0"),
                    ("XADD", "stream:small", "1-1", "field", "value"), ("XADD", "stream:empty", "1-1", "a", "b"),
                    ("XDEL", "stream:empty", "1-1")]
        commands += [("XADD", "stream:groups", "*", "field", f"value{i}", "other", "x" * 50) for i in range(2000)]
        commands += [("XREADGROUP", "GROUP", "g1", f"c{i}", "COUNT", "100", "STREAMS", "stream:groups", ">")
                     for i in range(3)]
        commands += [("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)"),
                     ("PEXPIREAT", "hash:large", FAR_FUTURE_MS), ("PFADD", "hyperloglog", "a", "b"),
                     ("SETBIT", "bitmap", "1000", "1")]
        redis.pipeline(commands)
        return {"list": 3, "set": 2, "zset": 2, "hash": 2, "stream": 3, "function": 1}

    def test_other_types_are_refused_or_skipped(self):
        redis = self.redis()
        others = self.fill_other_types(redis)
        redis.pipeline([("SET", f"key{i}", f"value{i}") for i in range(500)])
        strings = redis.strings()
        self.assertEqual(len(strings), 502)
        path = redis.save()

        report = self.verify(path)
        self.assertEqual(report["types"], {**others, "string": len(strings)})
        self.assertEqual(report["keys"], redis("DBSIZE"))
        self.assertEqual(report["expiring"], 1)

        p1 = self.primary().start()
        before = p1.status()["wal"]["durable_lsn"]
        _, error = self.load(p1, path, code=4)
        self.assertEqual(error["reason"], "not_loadable")
        for kind, count in others.items():
            self.assertIn(f"{count} {kind}", error["message"])
        self.assertEqual(p1.status()["wal"]["durable_lsn"], before)

        summary, _ = self.load(p1, path, "--skip-other-types")
        self.assertEqual((summary["keys"], summary["skipped"]), (len(strings), others))
        self.assert_holds(p1, strings)

    def test_one_of_several_databases(self):
        redis = self.redis()
        for db in (0, 7):
            redis("SELECT", db)
            redis.pipeline([("SET", f"key{i}", f"{db}/{i}") for i in range(100 + db)])
        expected = redis.strings(7)
        path = redis.save()
        p1 = self.primary().start()
        _, error = self.load(p1, path, code=4)
        self.assertIn("database 0: 100, database 7: 107", error["message"])
        _, error = self.load(p1, path, "--db", "5", code=4)
        self.assertIn("database 5 holds no keys", error["message"])
        summary, _ = self.load(p1, path, "--db", "7")
        self.assertEqual((summary["keys"], summary["keys_in_other_databases"]), (107, 100))
        self.assert_holds(p1, expected)

    def test_expired_keys_are_left_out(self):
        redis = self.redis()
        redis("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        redis.pipeline([("SET", f"stays{i}", "x") for i in range(10)])
        redis.pipeline([("SET", f"goes{i}", "x", "PX", "1") for i in range(20)])
        over = time.time() + 0.01
        wait_until(lambda: time.time() > over, "20 keys are expired")
        path = redis.save()
        self.assertEqual(self.verify(path)["expiring"], 20)
        p1 = self.primary().start()
        summary, _ = self.load(p1, path)
        self.assertEqual((summary["keys"], summary["expired"]), (10, 20))
        self.assertEqual(sorted(entry.key for entry in p1.client.scan()), [b"stays%d" % i for i in range(10)])

    def test_nothing_is_written_from_a_bad_file(self):
        redis = self.redis()
        redis.pipeline([("SET", f"key{i}", f"value{i}") for i in range(5000)])
        good = redis.save().read_bytes()
        p1 = self.primary().start()
        before = p1.status()["wal"]["durable_lsn"]
        damaged = bytearray(good)
        damaged[len(good) // 2] ^= 1
        bad = self.directory / "bad.rdb"
        for content, text in ((bytes(damaged), "byte"), (good[:-1], f"ends at byte {len(good) - 1}"),
                              (good[:len(good) // 2], f"ends at byte {len(good) // 2}"), (b"", "ends at byte 0"),
                              (b"{\"key\":\"a\"}\n" * 10, "byte 0"), (good + b"*1\r\n", f"byte {len(good)}"),
                              (b"REDIS0099" + good[9:], "REDIS0099")):
            bad.write_bytes(content)
            result = towctl("snapshot", "verify", bad, check=False)
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertIn(text, result.stderr)
            _, error = self.load(p1, bad, code=1)
            self.assertIn(text, error["message"])
            self.assertIn("nothing was written", error["next_action"])
        for unusable in ("/no/such/file", self.directory):
            self.assertEqual(towctl("snapshot", "verify", unusable, check=False).returncode, 1)
        self.assertEqual(p1.status()["wal"]["durable_lsn"], before)

    def test_keys_and_records_beyond_the_limits_are_refused(self):
        redis = self.redis()
        redis.pipeline([("SET", "", "no key"), ("SET", b"k" * 65537, "long key"), ("SET", "large", b"v" * (1 << 20)),
                        ("SET", "good", "x")])
        path = redis.save()
        p1 = self.primary(options={"limits.record_bytes": "1MiB"}).start()
        _, error = self.load(p1, path, code=4)
        self.assertIn("1 keys have 0 bytes; 1 keys have more than 65536 bytes; 1 records would have more than 1048576",
                      error["message"])
        self.assertEqual(list(p1.client.scan()), [])

    def test_a_replica_is_not_written_to(self):
        redis = self.redis()
        redis.pipeline([("SET", f"key{i}", "x") for i in range(10)])
        path = redis.save()
        p1, r1 = self.cluster(replicas=1)
        _, error = self.load(r1, path, code=5)
        self.assertEqual(error["reason"], "not_primary")
        summary, _ = self.load(r1, path, "--follow")
        self.assertEqual(summary["keys"], 10)
        self.assertEqual(len(list(p1.client.scan())), 10)

    def test_a_lost_connection_says_how_far_it_was_and_loading_again_completes_it(self):
        redis = self.redis()
        redis.pipeline([("SET", f"key{i}", self.random.randbytes(10_000)) for i in range(4000)])
        expected = redis.strings()
        path = redis.save()
        p1 = self.primary().start()
        relay = Relay(p1.endpoint, cut_after=30 << 20)
        self.addCleanup(relay.close)
        summary, error = self.load(relay, path, code=1)
        self.assertEqual(summary["ended"], "failed")
        self.assertGreater(summary["keys"], 0)
        self.assertLess(summary["keys"], 4000)
        self.assertIn(f"{summary['keys']} of 4000 keys", error["message"])
        self.assertIn("load the file again", error["next_action"])
        written = sum(1 for _ in p1.client.scan())
        self.assertGreaterEqual(written, summary["keys"])
        self.load(p1, path)
        self.assert_holds(p1, expected)


if __name__ == "__main__":
    harness.main()
