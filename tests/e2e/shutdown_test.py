#!/usr/bin/python3
"""Clean stops, restarts, and the end of the log after a crash."""

import json
import pathlib

import harness
from harness import NodeTest, repetitions
from workload import StreamWriter, fill


class ShutdownTest(NodeTest):
    def test_a_clean_stop_leaves_nothing_to_replay(self):
        p1, r1 = self.cluster(replicas=1)
        lsn = fill(p1, 3000)
        self.wait_caught_up(p1, r1)
        digest = p1.digest().digest
        for node in (r1, p1):
            node.stop()
        for node in (p1, r1):
            # Persisted when it opens: the store alone had everything, so nothing was replayed.
            node.start()
            status = node.status()
            self.assertGreaterEqual(status["store"]["persisted_lsn"], lsn, node.node_id)
        self.assertEqual(self.assert_same_data(p1, r1).digest, digest)
        self.assertEqual(p1.status()["resync"]["by_reason"], {"partial/resumed": 1})

    def test_a_clean_stop_answers_what_it_took(self):
        p1 = self.primary().start()
        with StreamWriter(p1) as writer:
            writer.wait_acked(500)
            p1.stop()
            p1.start()
            writer.wait_acked(500)
            writer.stop()
        writer.check(self, p1)

    def test_a_primary_alone_after_kills(self):
        p1 = self.primary(options={"wal.segment_bytes": "1MiB"}).start()
        with StreamWriter(p1, value_bytes=2000) as writer:
            for _ in range(repetitions(3)):
                writer.wait_acked(1000)
                p1.kill9()
                p1.start()
            writer.stop()
        writer.check(self, p1)
        self.assertEqual(p1.digest().keys, len(list(p1.client.scan())))

    def wal(self, node, verb, *arguments):
        """The answer of an offline towctl verb: a JSON document per line."""
        output = harness.towctl("wal", verb, "--data-dir", node.data_dir, *arguments, "-o", "json").stdout
        return [json.loads(line) for line in output.splitlines()]

    def newest_segment(self, node):
        """(path, number of used bytes) of the segment that the log ends in."""
        newest = self.wal(node, "stat")[0]["segments"][-1]
        (path,) = node.data_dir.glob("gen/*/wal/" + pathlib.PurePath(newest["file"]).name)
        return path, newest["used_bytes"]

    def test_a_torn_tail_is_put_aside(self):
        p1 = self.primary().start()
        lsn = fill(p1, 1000)
        p1.kill9()
        # As if the power had failed in the middle of the last write: a sector of one of its frames never reached the
        # disk. Nothing proves that the frame was durable: it is in the last group, and the node was not idle since.
        path, end = self.newest_segment(p1)
        hurt = self.wal(p1, "dump", "--from", lsn - 9, "--to", lsn - 9)[0]
        self.assertEqual(hurt["lsn"], lsn - 9)
        with open(path, "r+b") as segment:
            segment.seek(hurt["offset"] + 64)
            segment.write(bytes(64))
        self.assertGreater(self.wal(p1, "stat")[0]["tail_bytes"], 0)
        p1.start()
        self.assertEqual(p1.status()["wal"]["durable_lsn"], lsn - 10)
        self.assertEqual(p1.digest().keys, 990)
        (quarantine,) = (p1.data_dir / "quarantine").iterdir()
        self.assertGreaterEqual(quarantine.stat().st_size, end - hurt["offset"])
        self.assertIn(quarantine.name, p1.log())
        self.assertEqual(fill(p1, 10, prefix="more/"), lsn)
        self.assertTrue(self.wal(p1, "verify")[0]["ok"])

    def test_damage_in_the_middle_is_exit_11(self):
        p1 = self.primary(options={"wal.segment_bytes": "1MiB"}).start()
        fill(p1, 3000)
        p1.stop()
        segment, end = self.newest_segment(p1)
        before = segment.read_bytes()
        damaged = bytearray(before)
        damaged[end // 2] ^= 0x01
        segment.write_bytes(damaged)
        verified = harness.towctl("wal", "verify", "--data-dir", p1.data_dir, "-o", "json", check=False)
        self.assertEqual(verified.returncode, 3, verified.stdout)
        found = json.loads(verified.stdout)
        self.assertEqual((found["ok"], len(found["damages"])), (False, 1), found)
        self.assertGreater(self.wal(p1, "stat")[0]["tail_bytes"], 0)
        p1.launch()
        self.assertEqual(p1.wait_exit(), 11)
        self.assertIn(segment.name, p1.log())
        self.assertEqual(segment.read_bytes(), bytes(damaged), "a corrupt log is left as it is")
        segment.write_bytes(before)
        p1.start()
        self.assertEqual(p1.digest().keys, 3000)

    def test_damage_in_old_log_is_found_and_stepped_over(self):
        p1 = self.primary(options={"wal.segment_bytes": "1MiB"}).start()
        fill(p1, 3000)
        p1.stop()
        sealed = pathlib.Path(self.wal(p1, "stat")[0]["segments"][0]["file"])
        data = bytearray(sealed.read_bytes())
        data[len(data) // 2] ^= 0x01
        sealed.write_bytes(data)
        verified = harness.towctl("wal", "verify", "--data-dir", p1.data_dir, check=False)
        self.assertEqual(verified.returncode, 3)
        self.assertIn(sealed.name, verified.stdout)
        # Sealed segments are not read at the start. Nobody gets the damaged part as data: a replica that would need it
        # loads a snapshot.
        p1.start()
        r1 = self.replica("r1", p1).start(timeout=60)
        self.assert_same_data(p1, r1)
        self.assertEqual(p1.status()["resync"]["by_reason"].get("full/wal_damaged"), 1, p1.status()["resync"])


if __name__ == "__main__":
    harness.main()
