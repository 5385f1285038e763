#!/usr/bin/python3
"""Drills: every scenario passes on a throw-away cluster, and what its report says is true.

The reports are compared with what is there without towctl drill: the keys that a kept cluster has, the log in its
directories, its quarantine. A drill in which writes must be lost has to say so.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess

import harness
from harness import NodeTest, SLOW, TOWCTL, repetitions, towctl, wait_until

BEFORE = "300ms"
SCENARIOS = ("kill-primary", "partition", "switchover", "slot-loss", "full-resync", "stall")


class DrillsTest(NodeTest):
    def drill(self, scenario, *arguments, code=0):
        """Runs it, checks exit code and report; returns the report."""
        self.error = ""
        self.path = self.directory / f"{scenario}.json"
        command = ["drill", "run", scenario, "--seconds-before", BEFORE, "--seconds-after", "200ms",
                   "--report", self.path, *arguments]
        result = towctl(*command, check=False, timeout=120)
        self.error = result.stderr
        self.assertEqual(result.returncode, code, f"{result.stdout}\n{result.stderr}")
        report = json.loads(self.path.read_text())
        self.assertEqual((report["scenario"], report["passed"]), (scenario, code == 0))
        return report

    def local(self, scenario, *arguments, code=0):
        return self.drill(scenario, "--local", "--rto-max", f"{int(30 * SLOW)}s", *arguments, code=code)

    def phases(self, report, *names):
        """The report has these phases, one behind the other; returns their times in ms."""
        at = {phase["phase"]: phase["at_ms"] for phase in report["phases"]}
        times = [at[name] for name in names]
        self.assertEqual(times, sorted(times), at)
        return times

    def resyncs(self, report):
        return {f"{each['decision']}/{each['reason']}": each["count"] for each in report["resyncs"]}

    def assert_nothing_lost(self, report, levels=("local", "replicas")):
        for level in levels:
            self.assertEqual(report["rpo_records"][level], 0, report["lost"])
            self.assertGreater(report["writes"][level]["answered"], 20)

    # --- Each of them ---

    def test_kill_primary(self):
        for _ in range(repetitions(1, 10)):
            report = self.local("kill-primary")
            self.assert_nothing_lost(report, ["replicas"])
            self.assertEqual(report["duplicates"], 0)
            self.phases(report, "detected", "promoted", "first_write", "rejoined")
            self.assertEqual(report["rto_ms"], self.phases(report, "first_write")[0])

    def test_partition(self):
        report = self.local("partition")
        self.assert_nothing_lost(report, ["replicas"])
        self.assertEqual(report["duplicates"], 0)
        self.phases(report, "detected", "promoted", "first_write", "healed", "rejoined")
        # What the old primary took alone is lost, and every record of it is kept there.
        lost = report["rpo_records"]["local"]
        self.assertGreaterEqual(lost, 20)
        self.assertEqual(report["quarantine"]["lost_writes"], lost)

    def test_switchover(self):
        report = self.local("switchover", "--and-back")
        self.assert_nothing_lost(report)
        self.assertEqual(report["duplicates"], 0)
        self.phases(report, "switched", "slots_resumed", "switched_back", "slots_resumed_again")
        self.assertEqual([key for key in self.resyncs(report) if not key.startswith("partial/")], [])

    def test_slot_loss(self):
        report = self.local("slot-loss")
        self.assert_nothing_lost(report)
        self.phases(report, "slot_invalidated", "log_removed", "replica_restarted", "serves")
        self.assertEqual(self.resyncs(report).get("full/retained_bytes"), 1, report["resyncs"])

    def test_full_resync(self):
        report = self.local("full-resync")
        self.assert_nothing_lost(report)
        self.phases(report, "replica_restarted", "serves")
        self.assertEqual(sum(count for key, count in self.resyncs(report).items() if key.startswith("full/")), 1)

    def test_stall(self):
        report = self.local("stall")
        self.assert_nothing_lost(report)
        self.phases(report, "stall_reported", "replica_continued", "serves")
        self.assertLess(report["write_pause_ms"], self.phases(report, "stall_reported")[0], "the other replica confirms")
        self.assertEqual([key for key in self.resyncs(report) if not key.startswith("partial/")], [])

    # --- Reports are true ---

    @contextlib.contextmanager
    def kept(self, scenario, *arguments, code=0):
        """A drill whose cluster is left running: yields the report and {node id: endpoint}."""
        try:
            report = self.local(scenario, "--keep", *arguments, code=code)
            nodes = self.kept_nodes()
            self.assertEqual(len(nodes), 3, self.error)
            yield report, {fields[0]: fields[3] for fields in nodes}
        finally:
            for fields in self.kept_nodes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(fields[2]), signal.SIGKILL)
            for line in self.error.splitlines():
                if line.startswith("the cluster is kept in "):
                    harness.shutil.rmtree(line.removeprefix("the cluster is kept in "), ignore_errors=True)

    def kept_nodes(self):
        """What the drill said of the nodes that it left running: [node id, "pid", pid, endpoint]."""
        return [line.split() for line in self.error.splitlines() if "  pid " in line]

    def keys(self, report, endpoint):
        out = towctl("--endpoint", endpoint, "scan", "--prefix", f"_drill/{report['id']}/", "-o", "json").stdout
        return [json.loads(line)["key"] for line in out.splitlines()]

    def test_writes_that_must_be_lost_are_reported(self):
        with self.kept("kill-primary", "--replicas-down", "--rpo-max-local", "0", code=3) as (report, endpoints):
            lost = report["rpo_records"]["local"]
            self.assertGreaterEqual(lost, 20)
            self.assertEqual(report["rpo_records"]["replicas"], 0)
            self.assertIn("level local are lost", report["failures"][0])
            # An independent look: every node has the same keys, as many as were answered and not lost, and perhaps some
            # that were never answered.
            present = self.keys(report, endpoints["r1"])
            for endpoint in endpoints.values():
                self.assertEqual(self.keys(report, endpoint), present)
            for each in report["lost"]:
                self.assertNotIn(each["key"], present)
            for level, letter in (("local", "l"), ("replicas", "r")):
                there = sum(key.split("/")[2].startswith(letter) for key in present)
                answered, unanswered = report["writes"][level]["answered"], report["writes"][level]["unanswered"]
                kept = answered - report["rpo_records"][level]
                self.assertTrue(kept <= there <= kept + unanswered, (level, kept, there, unanswered))
            # What was lost stands in the old primary's quarantine, or was given up with its log for a snapshot.
            directory = pathlib.Path(report["cluster"]["directory"])
            dump = towctl("wal", "dump", "--quarantine", "--data-dir", directory / "p1", "-o", "json").stdout
            quarantined = {operation["put"]["key"] for line in dump.splitlines()
                           for operation in json.loads(line).get("operations", []) if "put" in operation}
            self.assertEqual(report["quarantine"]["lost_writes"] == lost,
                             {each["key"] for each in report["lost"]} <= quarantined)
            # The log of the new primary holds each key once.
            new = next(node for node in ("r1", "r2") if json.loads(
                towctl("--endpoint", endpoints[node], "status", "-o", "json").stdout)["role"] == "primary")
            dump = towctl("wal", "dump", "--data-dir", directory / new, "-o", "json").stdout
            logged = [operation["put"]["key"] for line in dump.splitlines()
                      for operation in json.loads(line).get("operations", []) if "put" in operation]
            self.assertEqual(sorted(logged), sorted(present))
            self.assertEqual(report["duplicates"], 0)

    def test_an_rto_over_its_threshold_fails(self):
        report = self.drill("kill-primary", "--local", "--rto-max", "1us", code=3)
        self.assertIn("the service was away", report["failures"][0])
        shown = towctl("drill", "report", self.path, check=False)
        self.assertEqual(shown.returncode, 3)
        self.assertIn("FAILED     the service was away", shown.stdout)
        self.assertEqual(json.loads(towctl("drill", "report", self.path, "-o", "json", check=False).stdout), report)

    # --- Named clusters ---

    def test_guards_of_a_named_cluster(self):
        p1, r1, _ = nodes = self.cluster(replicas=2)
        cluster_id = p1.status()["cluster_id"]

        def refused(reason, scenario, *arguments):
            result = p1.towctl("drill", "run", scenario, *arguments, "-o", "json", check=False)
            self.assertEqual(result.returncode, 4, result.stderr)
            self.assertEqual(json.loads(result.stderr)["error"]["reason"], reason)

        for scenario in set(SCENARIOS) - {"switchover"}:
            refused("needs_local", scenario, "--i-mean-it", cluster_id)
        refused("not_confirmed", "switchover")
        refused("not_confirmed", "switchover", "--i-mean-it", "another")
        p1.towctl("put", "_drill/left/l0/1", "x")
        refused("drill_running", "switchover", "--i-mean-it", cluster_id)
        p1.towctl("del", "_drill/", "--prefix-range")
        self.assertEqual({p1.status()["role"], r1.status()["role"]}, {"primary", "replica"})

        metrics = self.directory / "drill.prom"
        report = self.drill("switchover", "--i-mean-it", cluster_id, "--to", "r1", "--and-back", "--endpoint",
                            p1.endpoint, "--metrics-file", metrics)
        self.assert_nothing_lost(report)
        self.assertEqual(report["duplicates"], 0)
        p1.wait_state("writable")
        self.assertEqual([key for node in nodes for key in self.keys(report, node.endpoint)], [], "keys are deleted")
        samples = dict(line.rsplit(" ", 1) for line in metrics.read_text().splitlines() if not line.startswith("#"))
        self.assertEqual(samples['towline_drill_passed{scenario="switchover"}'], "1")
        self.assertEqual(float(samples['towline_drill_last_success_timestamp_seconds{scenario="switchover"}']),
                         report["started_ms"] / 1000)

        r1.stop()
        refused("unhealthy_cluster", "switchover", "--i-mean-it", cluster_id)

    # --- Ends ---

    def test_an_interrupt_leaves_nothing_behind(self):
        process = subprocess.Popen([TOWCTL, "drill", "run", "stall", "--local", "--seconds-before", "1h"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=self.directory,
                                   env={**os.environ, "TMPDIR": str(self.directory)})
        try:
            self.assertIn("drill", process.stderr.readline())  # the cluster is up
            children = [int(pid) for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
                        .read_text().split()]
            self.assertEqual(len(children), 3)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(30 * SLOW), 1)
        finally:
            process.kill()
            process.stderr.close()
        wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in children), "the nodes are gone")
        self.assertEqual(list(self.directory.glob("towline-drill-*")), [])


if __name__ == "__main__":
    harness.main()
