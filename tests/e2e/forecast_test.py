#!/usr/bin/python3
"""The forecast of slots and disk: what it says, what the what-ifs change, and whether what it says comes."""

import json
import threading

import harness
from harness import NodeTest, wait_until
from workload import StreamWriter

LIMIT = 48 << 20
# The guard is on, and out of reach on any disk that the tests could run on.
OPTIONS = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "store.flush_bytes": "2MiB", "store.flush_interval": "1s",
           "slots.persist_interval": "100ms", "slots.max_retained_bytes": f"{LIMIT}B", "disk.guard_ratio": "0.9999"}


class Follower:
    """A consumer that acks everything at once, on a thread of its own. It ends with the next record, so writers end later."""

    def __init__(self, node, slot):
        self.follower = node.client.follow(slot, after_lsn=0)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        for record in self.follower:
            self.follower.ack(record.lsn)
            if self.stopped.is_set():
                break
        self.follower.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stopped.set()
        self.thread.join(30 * harness.SLOW)


class ForecastTest(NodeTest):
    def forecast(self, node, *arguments, code=0):
        """{slot: forecast}, and the whole answer."""
        result = node.towctl("slot", "forecast", *arguments, "-o", "json", check=False)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        answer = json.loads(result.stdout)
        return {slot["name"]: slot for slot in answer["slots"]}, answer

    def metric(self, node, name):
        lines = node.http("/metrics")[1].splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"towline_{name} ")), None)

    def check_what_ifs(self, p1):
        """Each what-if decides who survives. The absence is so short that only what is so already counts, or so long that
        nobody survives it."""
        _, answer = self.forecast(p1, "--max-retained", "1TiB", "--replica-off", "1ms")
        self.assertEqual(answer["max_retained_bytes"], 1 << 40)
        slots, _ = self.forecast(p1, "--max-retained", "2MiB", "--replica-off", "1ms", code=3)
        self.assertEqual((slots["standing"]["survives"], slots["standing"]["cause"]), (False, "retained_bytes"))
        self.assertIs(slots["follows"]["survives"], True)
        slots, _ = self.forecast(p1, "--replica-off", "365d", code=3)
        for slot in slots.values():
            self.assertEqual((slot["survives"], slot["cause"]), (False, "retained_bytes"), slot)
            self.assertEqual(slot["retained_bytes_then"], LIMIT)
        # Without the limit it is the day that a consumer may be away.
        slots, _ = self.forecast(p1, "--max-retained", "1000000TiB", "--replica-off", "365d", "--disk", "1000000TiB", code=3)
        for slot in slots.values():
            self.assertEqual((slot["survives"], slot["cause"]), (False, "idle_timeout"), slot)
        slots, answer = self.forecast(p1, "--disk", "1MiB", "--max-retained", "1TiB", "--replica-off", "1ms", code=3)
        self.assertEqual(answer["disk"]["total_bytes"], 1 << 20)
        self.assertEqual(answer["disk"]["seconds_to_full"], 0)
        self.assertEqual((slots["standing"]["survives"], slots["standing"]["cause"]), (False, "disk_pressure"))
        slots, _ = self.forecast(p1, "follows", "--max-retained", "2MiB", "--replica-off", "1ms")
        self.assertEqual(list(slots), ["follows"])
        self.assertEqual(p1.towctl("slot", "forecast", "nobody", check=False).returncode, 1)

    def test_what_is_said_comes(self):
        p1 = self.primary(options=OPTIONS).start()
        p1.towctl("slot", "create", "standing", "--kind", "consumer", "--confirmed-lsn", "0")
        # Slow enough that everything below happens before the limit is reached.
        with StreamWriter(p1, value_bytes=2000, batch=16, window=4, pace_seconds=0.05) as writer, Follower(p1, "follows"):
            writer.wait_acked(2000)
            p1.wait_slot("standing", lambda slot: slot["retained_bytes"] > 4 << 20, "it holds log")
            p1.wait_slot("follows", lambda slot: slot["retained_bytes"] < 1 << 20, "it follows")
            slots, answer = self.forecast(p1)
            standing, follows = slots["standing"], slots["follows"]
            self.assertGreater(answer["append_bytes_per_second_1m"], 0)
            self.assertEqual(standing["drain_bytes_per_second_1m"], 0)
            self.assertEqual(standing["cause"], "retained_bytes")
            self.assertEqual(standing["retained_bytes"] + standing["headroom_bytes"], LIMIT)
            # The same rates, both windows: what is left over what comes.
            growth = max(answer["append_bytes_per_second_1m"], answer["append_bytes_per_second_15m"])
            self.assertAlmostEqual(standing["seconds_to_invalidation"], standing["headroom_bytes"] / growth, places=3)
            self.assertGreater(follows["drain_bytes_per_second_1m"], 0.5 * answer["append_bytes_per_second_1m"])
            self.assertIsNone(follows["idle_seconds"])
            self.assertTrue(follows["seconds_to_invalidation"] is None
                            or follows["seconds_to_invalidation"] > 2 * standing["seconds_to_invalidation"])
            self.assertGreater(self.metric(p1, 'wal_append_bytes_per_second{window="15m"}'), 0)
            self.assertGreater(self.metric(p1, 'slot_headroom_seconds{slot="standing"}'), 0)
            self.assertGreater(p1.status()["disk"]["total_bytes"], 0)
            self.assertIn("never" if follows["seconds_to_invalidation"] is None else "retained_bytes",
                          p1.towctl("slot", "forecast").stdout)
            self.check_what_ifs(p1)
            writer.pace_seconds = 0
            invalidated = p1.wait_slot("standing", lambda slot: slot["state"] == "invalidated", "invalidated", timeout=60)
            self.assertEqual(invalidated["invalidation"]["cause"], standing["cause"])
            self.assertNotEqual(self.slot(p1, "follows")["state"], "invalidated")
        slots, _ = self.forecast(p1, "--max-retained", "1TiB", code=3)
        self.assertEqual((slots["standing"]["survives"], slots["standing"]["cause"]), (False, "retained_bytes"))

    def test_nobody_writes(self):
        p1 = self.primary(options={**OPTIONS, "slots.consumer_idle": "1h"}).start()
        p1.towctl("slot", "create", "standing", "--kind", "consumer")
        wait_until(lambda: p1.towctl("slot", "forecast", check=False).returncode == 0, "the rates are measured")
        slots, _ = self.forecast(p1)
        self.assertEqual(slots["standing"]["cause"], "idle_timeout")
        self.assertIsNone(slots["standing"]["headroom_seconds"])
        self.assertLessEqual(slots["standing"]["seconds_to_invalidation"], 3600)
        self.forecast(p1, "--replica-off", "30m")
        self.forecast(p1, "--replica-off", "2h", code=3)


if __name__ == "__main__":
    harness.main()
