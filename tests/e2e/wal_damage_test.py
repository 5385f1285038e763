#!/usr/bin/python3
"""A damaged log on a real data directory: what starts, what refuses, what is reported, and what is never served.

Every flip is undone afterwards and the node must then be as it was: refusing changes nothing."""

import hashlib
import json
import os
import pathlib

import harness
from harness import NodeTest, wait_until
from workload import fill

SMALL_SEGMENTS = {"wal.segment_bytes": "1MiB"}
SECTOR = 512


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def contents(directory):
    """Of every file: its bytes' digest."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(directory.rglob("*")) if path.is_file()}


class WalDamageTest(NodeTest):
    def wal(self, node, verb, *arguments, code=0):
        """The answer of an offline towctl verb: a JSON document per line."""
        result = harness.towctl("wal", verb, "--data-dir", node.data_dir, *arguments, "-o", "json", check=False)
        self.assertEqual(result.returncode, code, f"{verb} {arguments}: {result.stdout[-500:]}\n{result.stderr}")
        return [json.loads(line) for line in result.stdout.splitlines()]

    def segments(self, node):
        return self.wal(node, "stat")[0]["segments"]

    def refuses(self, node, *expected):
        """The node exits with code 11, says `expected`, and has changed nothing."""
        before = contents(node.data_dir)
        node.launch()
        self.assertEqual(node.wait_exit(), 11)
        last = node.log().splitlines()[-1]
        for text in (*expected, "wal_corrupt", "nothing was changed"):
            self.assertIn(str(text), last)
        after = contents(node.data_dir)
        # The store may write its own diary; the log, the control file and the slots stay as they are.
        keep = [path for path in before if "/db/" not in path]
        self.assertEqual({path: after.get(path) for path in keep}, {path: before[path] for path in keep})

    def test_a_flip_in_a_sealed_header_or_footer_is_exit_11(self):
        p1 = self.primary(options=SMALL_SEGMENTS).start()
        fill(p1, 3000)
        digest = p1.digest().digest
        p1.stop()
        sealed = self.segments(p1)[1]
        self.assertTrue(sealed["sealed"])
        size = os.path.getsize(sealed["file"])
        name = pathlib.Path(sealed["file"]).name
        for place, offset in (("header", 60), ("footer", size - SECTOR + 60)):
            with self.subTest(place):
                flip(sealed["file"], offset)
                self.refuses(p1, name, f"offset {0 if place == 'header' else size - SECTOR}",
                             f"LSN {sealed['first_lsn']}")
                self.wal(p1, "stat", code=3)
                damages = self.wal(p1, "verify", code=3)[0]["damages"]
                self.assertEqual(pathlib.Path(damages[0]["file"]).name, name)
                flip(sealed["file"], offset)
        p1.start()
        self.assertEqual(p1.digest().digest, digest)

    def test_a_flip_in_the_newest_segment_is_exit_11(self):
        p1 = self.primary(options=SMALL_SEGMENTS).start()
        fill(p1, 3000)
        digest = p1.digest().digest
        p1.stop()
        newest = self.segments(p1)[-1]
        middle = newest["used_bytes"] // 2
        flip(newest["file"], middle)
        found = self.wal(p1, "verify", code=3)[0]
        self.assertEqual((found["ok"], len(found["damages"])), (False, 1), found)
        self.refuses(p1, pathlib.Path(newest["file"]).name, f"LSN {found['damages'][0]['lsn']}")
        flip(newest["file"], middle)
        p1.start()
        self.assertEqual(p1.digest().digest, digest)

    def test_a_flip_in_sealed_records_is_reported_by_everyone_and_never_served(self):
        p1 = self.primary(options={**SMALL_SEGMENTS, "wal.scrub_rate": "1GiB", "wal.scrub_interval": "1s"}).start()
        last = fill(p1, 3000)
        before = self.wal(p1, "dump", "--to", last)
        p1.stop()
        sealed = self.segments(p1)[0]
        hurt = self.wal(p1, "dump", "--from", 300, "--to", 300)[0]
        self.assertEqual(hurt["file"], sealed["file"])
        flip(hurt["file"], hurt["offset"] + 100)

        verified = self.wal(p1, "verify", code=3)[0]
        self.assertEqual([(damage["lsn"], damage["offset"]) for damage in verified["damages"]], [(300, hurt["offset"])])
        self.assertEqual(self.wal(p1, "dump", "--to", 299), before[:299])
        refused = harness.towctl("wal", "dump", "--data-dir", p1.data_dir, check=False)
        self.assertEqual((refused.returncode, len(refused.stdout.splitlines())), (1, 299))
        self.assertIn("wal_damaged", refused.stderr)

        # Sealed segments are not read at the start. The scrub finds it without anybody asking for the record.
        p1.start()
        status = p1.wait(lambda status: status["wal"]["damaged"] and status["state_reason"],
                         "the scrub reports the damage")
        (damage,) = status["wal"]["damaged"]
        self.assertEqual((damage["first_lsn"], damage["file"], damage["offset"], damage["readable"]),
                         (300, hurt["file"], hurt["offset"], False))
        self.assertLess(damage["last_lsn"], 300 + 200, "the range ends at the next index entry")
        self.assertEqual(status["state_reason"], "wal_damaged")
        self.assertIn("DAMAGED   lsn 300 to ", p1.towctl("status").stdout)
        metrics = p1.http("/metrics")[1]
        self.assertIn("\ntowline_wal_damaged_ranges 1\n", metrics)
        self.assertIn(f"\ntowline_wal_damaged_records {damage['last_lsn'] - 299}\n", metrics)
        self.assertIn("wal_scrub_damage", p1.log())

        # A reader gets what is in front of it, then an error, never the record.
        tail = p1.towctl("tail", "--from", 1, "--limit", 3000, "-o", "json", check=False)
        self.assertNotEqual(tail.returncode, 0)
        self.assertNotIn('"lsn":300,', tail.stdout)
        self.assertIn("wal_damaged", tail.stderr)
        # A replica that would need the record loads a snapshot.
        r1 = self.replica("r1", p1).start(timeout=60)
        self.assert_same_data(p1, r1)
        self.assertEqual(p1.status()["resync"]["full_total"], 1, p1.status()["resync"])

        # Put right, it is forgotten.
        flip(hurt["file"], hurt["offset"] + 100)
        p1.wait(lambda status: not status["wal"]["damaged"] and not status["state_reason"], "the damage is gone")

    def test_damage_that_nobody_knew_of_ends_a_stream_and_the_replica_loads_a_snapshot(self):
        p1 = self.primary(options={**SMALL_SEGMENTS, "wal.scrub_rate": "0B"}).start()
        fill(p1, 3000)
        p1.stop()
        hurt = self.wal(p1, "dump", "--from", 300, "--to", 300)[0]
        flip(hurt["file"], hurt["offset"] + 100)
        p1.start()
        self.assertEqual(p1.status()["wal"]["damaged"], [])
        r1 = self.replica("r1", p1).start(timeout=60)
        self.assert_same_data(p1, r1)
        status = p1.status()
        self.assertEqual(status["resync"]["by_reason"].get("full/wal_damaged"), 1, status["resync"])
        self.assertEqual([damage["first_lsn"] for damage in status["wal"]["damaged"]], [300])
        self.assertEqual(status["wal"]["scrub"]["passes"], 0)

    def test_a_torn_tail_is_put_aside(self):
        p1 = self.primary().start()
        lsn = fill(p1, 1000)
        p1.kill9()
        # As if the power had failed in the middle of the last write: a sector of one of its frames never reached the
        # disk. Nothing proves that the frame was durable: it is in the last group, and the node was not idle since.
        newest = self.segments(p1)[-1]
        hurt = self.wal(p1, "dump", "--from", lsn - 9, "--to", lsn - 9)[0]
        with open(newest["file"], "r+b") as segment:
            segment.seek(hurt["offset"] + 64)
            segment.write(bytes(64))
        self.assertGreater(self.wal(p1, "stat")[0]["tail_bytes"], 0)
        p1.start()
        self.assertEqual(p1.status()["wal"]["durable_lsn"], lsn - 10)
        self.assertEqual(p1.digest().keys, 990)
        (quarantine,) = (p1.data_dir / "quarantine").iterdir()
        self.assertGreaterEqual(quarantine.stat().st_size, newest["used_bytes"] - hurt["offset"])
        self.assertIn(quarantine.name, p1.log())
        (listed,) = self.wal(p1, "stat")[0]["quarantine"]
        self.assertEqual((listed["file"], listed["kind"]), (str(quarantine), "torn"))
        # What is whole of it can be read: all but the hurt record.
        put_aside = self.wal(p1, "dump", "--quarantine")
        self.assertEqual([record["lsn"] for record in put_aside], list(range(lsn - 8, lsn + 1)))
        self.assertEqual(fill(p1, 10, prefix="more/"), lsn)
        self.assertTrue(self.wal(p1, "verify")[0]["ok"])

    def test_indexes_can_go_at_any_time(self):
        p1 = self.primary(options=SMALL_SEGMENTS).start()
        last = fill(p1, 3000)
        wait_until(lambda: len(list(p1.data_dir.glob("gen/1/wal/*.idx"))) >= 2, "the indexes are written")

        def answers():
            starts = (1, 299, 1000, 2001, last - 2)
            return [p1.towctl("tail", "--from", start, "--limit", 3, "-o", "json").stdout for start in starts]

        before = answers()
        for restart in (False, True):
            for index in p1.data_dir.glob("gen/1/wal/*.idx"):
                index.unlink()
            if restart:
                p1.stop()
                p1.start()
            self.assertEqual(answers(), before)
        for index in p1.data_dir.glob("gen/1/wal/*.idx"):
            flip(index, 70)
        p1.stop()
        p1.start()
        self.assertEqual(answers(), before)

    def test_offline_tools_beside_a_running_node_change_nothing_and_call_nothing_torn(self):
        p1 = self.primary(options=SMALL_SEGMENTS).start()
        fill(p1, 100)
        for index in range(20):
            fill(p1, 100, prefix=f"{index}/")
            self.assertTrue(self.wal(p1, "verify")[0]["ok"])
            self.assertEqual([segment["damage"] for segment in self.segments(p1) if segment["damage"]], [])
        middle = self.wal(p1, "seek", 1000)[0]
        self.assertEqual(middle["lsn"], 1000)
        by_time = self.wal(p1, "seek", "--time", middle["commit_time_us"])[0]
        self.assertLessEqual(by_time["lsn"], 1000)
        since = self.wal(p1, "dump", "--since", middle["commit_time_us"])
        self.assertEqual(since[0], by_time)
        self.assertEqual(since[-1]["lsn"], p1.status()["wal"]["durable_lsn"])
        until = self.wal(p1, "dump", "--until", middle["commit_time_us"])
        self.assertEqual(len(until) + len(since), p1.status()["wal"]["durable_lsn"])
        p1.stop()
        before = contents(p1.data_dir)
        for verb, arguments in (("stat", []), ("verify", []), ("dump", []), ("dump", ["--quarantine"]), ("seek", [5])):
            self.wal(p1, verb, *arguments)
        self.assertEqual(contents(p1.data_dir), before)
        for arguments in (["seek"], ["seek", 5, "--time", "1m"], ["dump", "--since", "yesterday"],
                          ["dump", "--since", "1m", "--until", "2m"], ["dump", "--from", 9, "--to", 8]):
            self.wal(p1, *arguments, code=2)


if __name__ == "__main__":
    harness.main()
