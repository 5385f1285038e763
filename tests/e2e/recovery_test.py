#!/usr/bin/python3
"""A primary that has lost durable records says so, takes no writes, and gets them back or gives them up."""

import shutil

import harness
from harness import NodeTest, wait_until
from workload import fill

REFUSED = 4  # towctl's exit code of a refusal


def keys(node):
    """All keys and values of the node."""
    result = node.towctl("export", "-")
    return sorted(result.stdout.splitlines())


class RecoveryTest(NodeTest):
    def rolled_back(self, replicas=1, primary_options=None, replica_options=None):
        """A stopped primary whose data directory is an older copy, with its replicas, which hold 300 records more."""
        nodes = self.cluster(replicas, primary_options=primary_options, replica_options=replica_options)
        p1 = nodes[0]
        fill(p1, 200, prefix="old/")
        self.wait_caught_up(*nodes)
        p1.stop()
        shutil.copytree(p1.data_dir, self.directory / "copy")
        p1.start()
        for node in nodes[1:]:
            node.wait_state("streaming")
        fill(p1, 300, prefix="new/")
        self.wait_caught_up(*nodes)
        self.lost = keys(p1)
        self.durable = p1.status()["wal"]["durable_lsn"]
        p1.stop()
        shutil.rmtree(p1.data_dir)
        shutil.copytree(self.directory / "copy", p1.data_dir)
        return nodes

    def assert_no_writes(self, node):
        result = node.towctl("put", "k", "v", check=False)
        self.assertEqual(result.returncode, REFUSED, result.stderr)
        self.assertIn("recovery_required", result.stderr)
        self.assertIn("towctl recover", result.stderr)

    def test_the_suffix_comes_back(self):
        p1, r1, r2 = self.rolled_back(replicas=2)
        # One is behind the other: the one that holds most is suggested.
        p1.start("recovery_required")
        status = p1.status()
        self.assertEqual(status["state_reason"], "replica_ahead")
        self.assertLess(status["wal"]["durable_lsn"], self.durable)
        self.assert_no_writes(p1)
        before = r1.digest()
        r1.wait(lambda status: status["state"] == "halted" and status["state_reason"] == "replica_ahead",
                "halted, because it is ahead")

        # It is kept over a restart, also when nobody is there to be asked.
        r1.pause()
        r2.pause()
        p1.kill9()
        p1.start("recovery_required")
        self.assert_no_writes(p1)
        r1.resume()
        r2.resume()

        shown = p1.towctl("recover", "-o", "json", check=False)
        self.assertEqual(shown.returncode, 3)
        self.assertIn('"suggested_from":"r', shown.stdout.replace(" ", ""))
        self.assertEqual(r1.digest().digest, before.digest)
        recovered = p1.towctl_json("recover", "--from", "r1")
        self.assertEqual(recovered["durable_lsn"], self.durable)
        p1.wait_state("writable")
        self.assertEqual(keys(p1), self.lost)
        for node in (r1, r2):
            node.wait_state("streaming")
        fill(p1, 50, prefix="after/")
        self.assert_same_data(p1, r1, r2)
        resync = p1.status()["resync"]
        self.assertEqual(resync["full_total"], 0, resync)
        self.assertEqual([slot["name"] for slot in r1.status()["slots"] if not slot["origin"]], [],
                         "recovery leaves no slot behind")
        self.assertEqual(p1.status()["term"], 1)
        # A second time there is nothing to do.
        again = p1.towctl("recover", "--from", "r1", check=False)
        self.assertEqual(again.returncode, REFUSED)
        self.assertIn("not_in_recovery", again.stderr)
        self.assertEqual(p1.towctl("recover").returncode, 0)

    def test_the_loss_is_accepted(self):
        p1, r1 = self.rolled_back(replica_options={"rewind.checkpoint_interval": "0s"})  # else it may go back
        p1.start("recovery_required")
        before = p1.status()["wal"]["durable_lsn"]
        accepted = p1.towctl_json("recover", "--accept-loss")
        self.assertEqual((accepted["term"], accepted["old_durable_lsn"]), (2, before))
        p1.wait_state("writable")
        history = p1.status()["history"]
        self.assertEqual([(entry["term"], entry["start_lsn"]) for entry in history], [(1, 1), (2, before + 1)])
        fill(p1, 20, prefix="later/")
        # What the replica holds beyond is of a line that nobody goes on with.
        p1.wait(lambda status: status["resync"]["by_reason"].get("full/diverged") == 1, "diverged, bootstrapped anew")
        r1.wait_state("streaming")
        self.assertEqual(p1.status()["resync"]["invalidations"].get("diverged"), 1)
        self.assertIn('towline_slot_invalidations_total{cause="diverged"} 1', p1.http("/metrics")[1])
        self.assert_same_data(p1, r1)
        self.assertNotIn("new/", "".join(keys(r1)))
        # Nothing is deleted without a trace: the replica has put its lost records aside.
        self.assertTrue(list((r1.data_dir / "quarantine").glob("diverged-*")))
        p1.kill9()
        p1.start()
        self.assertEqual(p1.status()["term"], 2)

    def test_a_primary_that_asked_nobody_finds_out_late(self):
        p1, r1 = self.rolled_back(primary_options={"start.peer_wait": "300ms"})
        r1.pause()
        p1.start()  # opens, because nobody answers
        self.assertIn("peer_not_heard", p1.log())
        p1.towctl("put", "wrong", "turn")
        r1.resume()
        p1.wait_state("recovery_required")
        self.assert_no_writes(p1)
        # It has gone on by itself, so what the replica holds does not follow its own last record.
        refused = p1.towctl("recover", "--from", r1.endpoint, check=False)
        self.assertEqual(refused.returncode, REFUSED)
        self.assertIn("recovery_refused", refused.stderr)
        self.assertIn("diverged_same_term", refused.stderr)
        self.assertEqual(p1.status()["state"], "recovery_required")
        p1.towctl("recover", "--accept-loss")
        p1.wait_state("writable")
        r1.wait_state("streaming")
        self.assert_same_data(p1, r1)

    def test_recovery_goes_on_where_it_was_cut(self):
        p1, r1 = self.rolled_back()
        p1.start("recovery_required")
        # Nobody listens there.
        unused = harness.free_ports(1)[0]
        failed = p1.towctl("recover", "--from", f"127.0.0.1:{unused}", check=False)
        self.assertEqual(failed.returncode, 1, failed.stderr)
        self.assertIn("recovery_interrupted", failed.stderr)
        unknown = p1.towctl("recover", "--from", "r9", check=False)
        self.assertIn("member_not_found", unknown.stderr)
        self.assertEqual(p1.towctl("recover", "--from", "r1", "--accept-loss", check=False).returncode, 2)
        self.assertEqual(r1.towctl("recover", "--from", "p1", check=False).returncode, 5)
        p1.towctl("recover", "--from", "r1")
        self.assertEqual(keys(p1), self.lost)

    def test_a_start_waits_for_members_that_are_away(self):
        p1, r1 = self.cluster(1, primary_options={"start.peer_wait": "60s"})
        fill(p1, 10)
        self.wait_caught_up(p1, r1)
        r1.stop()
        p1.kill9()
        p1.launch()
        p1.wait(lambda status: status["state_reason"] == "waiting_for_members", "it waits")
        self.assertEqual(p1.status()["state"], "starting")
        refused = p1.towctl("put", "k", "v", check=False)
        self.assertIn("waiting_for_members", refused.stderr)
        self.assertEqual(p1.http("/primary")[0], 503)
        self.assertEqual(p1.towctl("get", "key000000", check=False).returncode in (0, 1), True)
        r1.launch()  # is heard, and that was the last one
        p1.wait_state("writable", timeout=30)


class WrongPrimaryTest(NodeTest):
    def test_explain_tells_what_happens(self):
        p1, r1 = self.cluster(1)
        fill(p1, 20)
        self.wait_caught_up(p1, r1)
        told = p1.towctl_json("slot", "explain", "r1")
        self.assertIn("r1 itself", told["position_from"])
        self.assertEqual((told["plan"]["decision"], told["plan"]["reason"]), ("partial", "resumed"))
        self.assertEqual(told["slot"]["health"], "reserved")
        r1.stop()
        fill(p1, 20, prefix="more/")
        told = p1.towctl_json("slot", "explain", "r1")
        self.assertIn("the slot", told["position_from"])
        self.assertEqual((told["plan"]["decision"], told["plan"]["reason"]), ("partial", "resumed"))
        self.assertGreater(told["bytes_to_ship"], 0)
        self.assertGreater(told["slot"]["retained_bytes"], 0)
        self.assertEqual(p1.towctl_json("slot", "explain", "r7")["plan"]["reason"], "new_replica")
        before = p1.status()["resync"]["by_reason"]
        self.assertEqual(before, {"partial/new_replica": 1}, "asking counts nothing")
        r1.start()
        wait_until(lambda: p1.status()["resync"]["by_reason"].get("partial/resumed") == 1, "resumed, as was told")


if __name__ == "__main__":
    harness.main()
