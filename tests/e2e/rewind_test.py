#!/usr/bin/python3
"""A node whose last records its primary does not have goes back to the last record in common, without a snapshot.

Goal    What is on the other line is given up, but kept, readable and counted; no state crosses the network; where going
        back is not possible a snapshot is loaded, and the node says why.
Method  The primary is put back to an older copy of its disk and gives up what it has lost, which begins a new term: its
        replicas then hold records of a line that nobody goes on with.
"""

import json
import shutil

import harness
from harness import NodeTest
from workload import fill

# The first checkpoint is made as soon as there is something; no other one follows within the test.
ONE_CHECKPOINT = {"rewind.checkpoint_interval": "1h"}
NO_CHECKPOINT = {"rewind.checkpoint_interval": "0s"}


def keys(node):
    return sorted(node.towctl("export", "-").stdout.splitlines())


class RewindTest(NodeTest):
    def diverge(self, p1, nodes, lost=300, gained=40):
        """The primary goes back to what all hold now, and on from there. Returns (last common LSN, old end)."""
        self.wait_caught_up(p1, *nodes)
        p1.stop()
        shutil.rmtree(self.directory / "copy", ignore_errors=True)
        shutil.copytree(p1.data_dir, self.directory / "copy")
        p1.start()
        for node in nodes:
            node.wait_state("streaming")
        fill(p1, lost, prefix="lost/")
        end = self.wait_caught_up(p1, *nodes)
        p1.stop()
        shutil.rmtree(p1.data_dir)
        shutil.copytree(self.directory / "copy", p1.data_dir)
        p1.start("recovery_required")
        common = p1.status()["wal"]["durable_lsn"]
        p1.towctl("recover", "--accept-loss")
        p1.wait_state("writable")
        fill(p1, gained, prefix="gained/")
        return common, end

    def wait_checkpoint(self, *nodes):
        for node in nodes:
            node.wait(lambda status: status["rewind"]["checkpoint_lsns"], "a rewind checkpoint")

    def quarantined(self, node):
        """LSNs of the records in the node's quarantine."""
        result = harness.towctl("wal", "dump", "--quarantine", "--data-dir", node.data_dir, "-o", "json")
        return [json.loads(line)["lsn"] for line in result.stdout.splitlines()]

    def test_a_replica_goes_back(self):
        p1, r1 = self.cluster(1, replica_options=ONE_CHECKPOINT)
        r2 = self.replica("r2", r1, options=ONE_CHECKPOINT).start()  # behind r1
        fill(p1, 200, prefix="old/")
        self.wait_caught_up(p1, r1, r2)
        self.wait_checkpoint(r1, r2)
        common, end = self.diverge(p1, [r1, r2])
        for node in (r1, r2):
            status = node.wait(lambda status: status["rewind"]["rewinds_total"] == 1 and
                               status["state"] == "streaming", "back, and streaming")
            rewind = status["rewind"]
            self.assertEqual(rewind["discarded_records_total"], end - common, rewind)
            last = rewind["last"]
            self.assertEqual((last["common_lsn"], last["old_lsn"]), (common, end), rewind)
            self.assertEqual(rewind["checkpoint_lsns"][0], last["checkpoint_lsn"], "it can go back again")
            self.assertLessEqual(last["checkpoint_lsn"], common)
            self.assertEqual(self.quarantined(node), list(range(common + 1, end + 1)))
            self.assertEqual([entry["term"] for entry in status["history"]], [1, 2])
            self.assertIn(f"towline_rewind_discarded_records_total {end - common}", node.http("/metrics")[1])
        self.assert_same_data(p1, r1, r2)
        self.assertNotIn("lost/", "".join(keys(r2)))
        for upstream in (p1, r1):
            resync = upstream.status()["resync"]
            self.assertEqual(resync["by_reason"].get("rewind/diverged"), 1, resync)
            self.assertEqual((resync["rewind_total"], resync["full_total"]), (1, 0), resync)
            (slot,) = [slot for slot in upstream.status()["slots"]]
            self.assertEqual(slot["state"], "active")
        for node in (r1, r2):
            self.assertIn("rewind    back to LSN", node.towctl("status").stdout)
            self.assertEqual(len(list((node.data_dir / "gen").iterdir())), 1)
            node.kill9()
            node.start()
        fill(p1, 30, prefix="more/")
        self.assert_same_data(p1, r1, r2)
        self.assertEqual(r1.status()["history"], p1.status()["history"])

    def test_a_replica_goes_back_again(self):
        p1, r1 = self.cluster(1, replica_options=ONE_CHECKPOINT)
        fill(p1, 200, prefix="old/")
        self.wait_caught_up(p1, r1)
        self.wait_checkpoint(r1)
        for times in (1, 2, 3):
            self.diverge(p1, [r1], lost=50 * times)
            r1.wait(lambda status: status["rewind"]["rewinds_total"] == times and status["state"] == "streaming",
                    f"back {times} times")
            self.assert_same_data(p1, r1)
        self.assertEqual(len(list((r1.data_dir / "quarantine").glob("diverged-*"))), 3)
        self.assertEqual([entry["term"] for entry in r1.status()["history"]], [1, 2, 3, 4])

    def test_without_a_checkpoint_a_snapshot_is_loaded(self):
        p1, r1 = self.cluster(1, replica_options=NO_CHECKPOINT)
        fill(p1, 200, prefix="old/")
        self.diverge(p1, [r1])
        p1.wait(lambda status: status["resync"]["by_reason"].get("full/diverged") == 1, "a full resync")
        r1.wait_state("streaming")
        self.assert_same_data(p1, r1)
        status = r1.status()["rewind"]
        self.assertEqual((status["rewinds_total"], status["checkpoint_lsns"]), (0, []), status)

    def test_a_damaged_checkpoint_is_no_dead_end(self):
        p1, r1 = self.cluster(1, replica_options=ONE_CHECKPOINT)
        fill(p1, 200, prefix="old/")
        self.wait_caught_up(p1, r1)
        self.wait_checkpoint(r1)
        (checkpoint,) = r1.data_dir.glob("gen/*/checkpoints/*")
        (checkpoint / "CURRENT").write_text("nothing\n")
        common, end = self.diverge(p1, [r1])
        p1.wait(lambda status: status["resync"]["by_reason"].get("full/diverged") == 1, "a full resync")
        r1.wait_state("streaming")
        self.assert_same_data(p1, r1)
        status = r1.status()["rewind"]
        self.assertEqual((status["rewinds_total"], status["not_possible_total"]), (0, 1), status)
        self.assertIn("no_rewind_checkpoint", r1.log())
        self.assertEqual(self.quarantined(r1), list(range(common + 1, end + 1)))

    def test_checkpoints_of_an_idle_node_stay_what_they_are(self):
        p1 = self.primary(options={"rewind.checkpoint_interval": "200ms", "store.flush_interval": "100ms"}).start()
        fill(p1, 100)
        self.wait_checkpoint(p1)
        newest = p1.status()["wal"]["durable_lsn"]
        status = p1.wait(lambda status: status["rewind"]["checkpoint_lsns"][-1:] == [newest], "one of all there is")
        made = status["rewind"]["checkpoints_made"]
        self.assertLessEqual(len(status["rewind"]["checkpoint_lsns"]), 2)
        fill(p1, 100, prefix="b/")
        status = p1.wait(lambda status: status["rewind"]["checkpoint_lsns"][-1] == status["wal"]["durable_lsn"],
                         "one of what came")
        self.assertGreater(status["rewind"]["checkpoints_made"], made)
        before = status["rewind"]
        p1.kill9()
        p1.start()
        self.assertEqual(p1.status()["rewind"]["checkpoint_lsns"], before["checkpoint_lsns"])


if __name__ == "__main__":
    harness.main()
