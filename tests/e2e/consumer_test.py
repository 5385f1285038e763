#!/usr/bin/python3
"""Consumers with a slot of their own: the Python example, towctl tail, and what a slot promises."""

import json
import subprocess
import sys

import harness
import towline_client
from harness import NodeTest, wait_until
from workload import StreamWriter, fill

SMALL_LOG = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "1MiB", "store.flush_bytes": "2MiB",
             "store.flush_interval": "1s"}


def operations(records):
    return [operation for record in records for operation in record.change.batch.operations]


class ConsumerTest(NodeTest):
    def read(self, node, slot, until_lsn, **arguments):
        """Records up to until_lsn, all acked and the ack saved."""
        follower = node.client.follow(slot, **arguments)
        records = []
        for record in follower:
            records.append(record)
            follower.ack(record.lsn)
            if record.lsn >= until_lsn:
                break
        else:
            self.fail("the stream ended")
        return follower, records

    def test_resumes_where_it_left(self):
        p1, r1 = self.cluster(replicas=1)
        for node in (p1, r1):
            slot = f"index-{node.node_id}"
            first = fill(p1, 1000, prefix=f"a-{slot}/")
            self.wait_caught_up(p1, r1)
            follower, records = self.read(node, slot, first, after_lsn=0)
            self.assertEqual([record.lsn for record in records], list(range(1, first + 1)))
            times = [record.commit_time_us for record in records]
            self.assertEqual(times, sorted(times))
            node.wait_slot(slot, lambda slot: slot["confirmed_lsn"] == first, "confirmed")
            follower.close()
            second = fill(p1, 1000, prefix=f"b-{slot}/")
            self.wait_caught_up(p1, r1)
            # As a new process would: only the name of the slot is known.
            follower, records = self.read(node, slot, second)
            self.assertEqual(records[0].lsn, first + 1)
            self.assertEqual([record.lsn for record in records], list(range(first + 1, second + 1)))
            follower.close()

    def test_survives_a_restart_of_the_server(self):
        p1 = self.primary(options={"slots.persist_interval": "50ms"}).start()
        applied = {}  # what the consumer made of the stream
        confirmed = 0
        with StreamWriter(p1, value_bytes=50) as writer:
            for _ in range(harness.repetitions(3)):
                writer.wait_acked(300)
                follower = p1.client.follow("index", after_lsn=None if confirmed else 0)
                self.assertLessEqual(follower.started.from_lsn, confirmed + 1, "nothing is skipped")
                target = p1.status()["wal"]["durable_lsn"]
                expected = follower.started.from_lsn
                for record in follower:
                    self.assertEqual(record.lsn, expected)
                    expected += 1
                    for operation in operations([record]):
                        applied[operation.put.key] = operation.put.value
                    follower.ack(record.lsn)
                    confirmed = record.lsn
                    if record.lsn >= target:
                        break
                follower.close()
                p1.kill9()
                p1.start()
            writer.stop()
        end = p1.status()["wal"]["durable_lsn"]
        follower, records = self.read(p1, "index", end)
        follower.close()
        applied.update((operation.put.key, operation.put.value) for operation in operations(records))
        state = {entry.key: entry.value for entry in p1.client.scan()}
        self.assertEqual(applied, state)
        writer.check(self, p1)

    def test_a_slot_keeps_the_log(self):
        p1 = self.primary(options=SMALL_LOG).start()
        begin = fill(p1, 10)
        p1.towctl("slot", "create", "slow", "--kind", "consumer", "--confirmed-lsn", begin)
        end = fill(p1, 10_000, prefix="more/")
        slot = p1.wait_slot("slow", lambda slot: slot["retained_bytes"] > 4 << 20, "it holds the log")
        self.assertEqual((slot["state"], slot["health"], slot["kind"]), ("inactive", "reserved", "consumer"))
        self.assertLessEqual(p1.status()["wal"]["first_lsn"], begin + 1)
        p1.kill9()
        p1.start()
        follower, records = self.read(p1, "slow", end)
        follower.close()
        self.assertEqual(len(records), 10_000)
        p1.wait(lambda status: status["wal"]["first_lsn"] > begin + 1, "what nobody needs any more is removed")

    def test_a_lost_slot_says_so_and_never_skips(self):
        p1 = self.primary(options={**SMALL_LOG, "slots.max_retained_bytes": "3MiB"}).start()
        fill(p1, 10)
        p1.towctl("slot", "create", "slow", "--kind", "consumer", "--confirmed-lsn", "0")
        fill(p1, 10_000, prefix="more/")
        p1.wait_slot("slow", lambda slot: slot["health"] == "lost", "lost")
        first = p1.wait(lambda status: status["wal"]["first_lsn"] > 1, "pruned")["wal"]["first_lsn"]

        def first_lsn():
            return p1.status()["wal"]["first_lsn"]

        def refusal():
            """None if more was removed meanwhile."""
            before = first_lsn()
            with self.assertRaises(towline_client.TowlineError) as refused:
                p1.client.follow("slow")
            self.assertIn(refused.exception.reason, ("wal_removed", "retained_bytes"))
            return (refused.exception, before) if first_lsn() == before else None

        error, oldest = wait_until(refusal, "a refusal while nothing is removed")
        self.assertRegex(str(error), r"\b%d\b" % oldest)
        explained = p1.towctl_json("slot", "explain", "slow")
        self.assertEqual(explained["plan"]["decision"], "refuse")

        # Starting again is the consumer's own decision.
        def start_again():
            try:
                return p1.client.follow("slow", after_lsn=first_lsn() - 1)
            except towline_client.TowlineError as error:
                self.assertIn(error.reason, ("wal_removed", "retained_bytes"))  # meanwhile
                return None

        follower = wait_until(start_again, "the consumer starts again")
        self.assertGreaterEqual(next(iter(follower)).lsn, first)
        follower.close()

    def test_idle_slots_are_invalidated(self):
        p1 = self.primary(options={"slots.consumer_idle": "300ms"}).start()
        p1.towctl("slot", "create", "forgotten", "--kind", "consumer")
        slot = p1.wait_slot("forgotten", lambda slot: slot["state"] == "invalidated", "invalidated")
        self.assertEqual(slot["invalidation"]["cause"], "idle_timeout")

    def test_slot_verbs(self):
        p1 = self.primary(options={"slots.auto_create": "false"}).start()
        fill(p1, 5)
        with self.assertRaises(towline_client.TowlineError) as refused:
            p1.client.follow("nobody")
        self.assertEqual(refused.exception.reason, "slot_not_found")
        p1.towctl("slot", "create", "one", "--kind", "consumer", "--confirmed-lsn", "2")
        again = p1.towctl("slot", "create", "one", "--kind", "consumer", check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn("slot_exists", again.stderr)
        ahead = p1.towctl("slot", "create", "two", "--kind", "consumer", "--confirmed-lsn", "1000", check=False)
        self.assertEqual(ahead.returncode, 1)
        self.assertEqual([slot["name"] for slot in p1.towctl_json("slot", "list")["slots"]], ["one"])
        follower = p1.client.follow("one")
        self.assertEqual(next(iter(follower)).lsn, 3)
        self.assertEqual(p1.towctl("slot", "drop", "one", "--yes", check=False).returncode, 4)
        p1.towctl("slot", "drop", "one", "--force", "--yes")
        self.assertEqual(p1.status()["slots"], [])
        follower.close()
        p1.kill9()
        p1.start()
        self.assertEqual(p1.status()["slots"], [])


class ToolsTest(NodeTest):
    def example(self, node, *arguments):
        return subprocess.run([sys.executable, "-B", harness.EXAMPLES / "example.py", "--stubs", harness.STUBS,
                               "--endpoint", node.endpoint, *map(str, arguments)], capture_output=True, text=True,
                              timeout=60 * harness.SLOW)

    def test_the_python_example(self):
        p1, r1 = self.cluster(replicas=1)
        result = self.example(p1, "demo")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("example/colour = green", result.stdout)
        self.assertNotIn("example/size = 42 ", result.stdout)
        self.wait_caught_up(p1, r1)
        end = r1.status()["wal"]["durable_lsn"]
        lines = []
        while len(lines) < end:  # three at a time, each run a new process
            begin = [] if lines else ["--after-lsn", "0"]
            result = self.example(r1, "follow", *begin, "--limit", min(3, end - len(lines)))
            self.assertEqual(result.returncode, 0, result.stderr)
            head, *new = result.stdout.splitlines()
            self.assertIn(f"from LSN {len(lines) + 1}", head)
            lines += new
        self.assertEqual([int(line.split()[0]) for line in lines], list(range(1, end + 1)))
        self.assertIn("message b'example/events' b'hello, consumers'", "\n".join(lines))
        refused = self.example(r1, "demo")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("not_primary", refused.stderr)

    def test_towctl_tail(self):
        p1 = self.primary().start()
        fill(p1, 20, prefix="a/")
        lsn = fill(p1, 20, prefix="b/")
        p1.towctl("message", "topic", "payload")
        lines = [json.loads(line) for line in
                 p1.towctl("tail", "--slot", "t", "--create", "--from", "1", "--until-current").stdout.splitlines()]
        self.assertEqual([line["lsn"] for line in lines], list(range(1, lsn + 2)))
        only_b = p1.towctl("tail", "--from", "1", "--prefix", "b/", "--until-current").stdout.splitlines()
        self.assertEqual(len(only_b), 20)
        p1.wait_slot("t", lambda slot: slot["confirmed_lsn"] == lsn + 1, "confirmed")
        fill(p1, 3, prefix="c/")
        more = [json.loads(line) for line in p1.towctl("tail", "--slot", "t", "--limit", "3").stdout.splitlines()]
        self.assertEqual([line["lsn"] for line in more], [lsn + 2, lsn + 3, lsn + 4])
        wait_until(lambda: [slot["name"] for slot in p1.status()["slots"]] == ["t"], "the temporary slot is dropped")

    def test_towctl_tail_follows_until_interrupted(self):
        p1 = self.primary().start()
        process = subprocess.Popen([harness.TOWCTL, "--endpoint", p1.endpoint, "tail", "--slot", "live", "--create"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            p1.wait_slot("live", lambda slot: slot["state"] == "active", "connected")
            lsn = p1.client.write(towline_client.put(b"now", b"1"))
            line = json.loads(process.stdout.readline())
            self.assertEqual(line["lsn"], lsn)
            process.send_signal(harness.signal.SIGINT)
            self.assertEqual(process.wait(20 * harness.SLOW), 0, process.stderr.read())
        finally:
            process.kill()
            process.communicate()
        p1.wait_slot("live", lambda slot: slot["confirmed_lsn"] == lsn and slot["state"] == "inactive", "confirmed")


if __name__ == "__main__":
    harness.main()
