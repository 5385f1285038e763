#!/usr/bin/python3
"""Lag of each stage tells the truth: idle, paused, half deaf, cut off."""

import harness
from harness import NodeTest
from relay import Relay
from workload import fill

STALL = {"replication.stall_timeout": "2s"}
STAGES = ["sent", "received", "flushed", "applied"]


def stages(status, slot="r1"):
    """{stage: {records, bytes, seconds}} of that slot."""
    (peer,) = [peer for peer in status["replicas"] + status["consumers"] if peer["slot"] == slot]
    assert [stage["stage"] for stage in peer["stages"]] == STAGES, peer
    assert [peer[f"lag_{unit}"] for unit in ("records", "bytes", "seconds")] == \
        [peer["stages"][-1][unit] for unit in ("records", "bytes", "seconds")], peer
    return {stage["stage"]: stage for stage in peer["stages"]}


def is_zero(stage):
    return (stage["records"], stage["bytes"], stage["seconds"]) == (0, 0, 0)


def no_lag(status, slot="r1"):
    return all(is_zero(stage) for stage in stages(status, slot).values())


class LagTest(NodeTest):
    def setUp(self):
        self.p1 = self.primary(options=STALL).start()

    def relay(self):
        relay = Relay(self.p1.endpoint)
        self.addCleanup(relay.close)
        return relay

    def state(self, status):
        return status["replicas"][0]["state"]

    def wait_no_lag(self, timeout=30.0):
        self.wait_members(self.p1, 2)
        return self.p1.wait(lambda status: status["replicas"] and no_lag(status) and self.state(status) == "streaming",
                            "no lag in any stage", timeout)

    def metrics(self):
        """{(name, stage): value} of the lag of r1."""
        values = {}
        for line in self.p1.http("/metrics")[1].splitlines():
            if line.startswith("towline_replica_lag_") and 'slot="r1"' in line:
                name, rest = line.split("{")
                values[name, rest.split('stage="')[1].split('"')[0]] = float(line.split()[-1])
        return values

    def test_an_idle_primary_has_no_lag(self):
        self.replica("r1", self.p1).start()
        fill(self.p1, 100)
        start = self.wait_no_lag()["uptime_seconds"]
        while True:  # several heartbeats long
            status = self.p1.status()
            self.assertTrue(no_lag(status), status["replicas"])
            if status["uptime_seconds"] > start + 1.5:
                break
        self.assertEqual(set(self.metrics().values()), {0.0})
        self.assertEqual(len(self.metrics()), 12)
        self.assertIn("lag       by stage", self.p1.towctl("status").stdout)

    def test_a_paused_apply_shows_in_applied_only(self):
        r1 = self.replica("r1", self.p1).start()
        fill(self.p1, 100)
        self.wait_no_lag()
        r1.stop()
        r1.environment["TOWLINE_FAILPOINTS"] = "applier_pause"
        r1.start()
        fill(self.p1, 200, prefix="paused/")
        status = self.p1.wait(lambda status: self.state(status) == "stalled", "stalled")
        lag = stages(status)
        self.assertTrue(all(is_zero(lag[stage]) for stage in STAGES[:3]), lag)
        self.assertEqual(lag["applied"]["records"], 200)
        self.assertGreater(lag["applied"]["bytes"], 200 * 500)
        self.assertGreater(lag["applied"]["seconds"], 1.5)
        self.assertEqual(status["resync"]["stalls"], 1)
        metrics = self.metrics()
        self.assertEqual(metrics["towline_replica_lag_records", "applied"], 200)
        self.assertEqual(metrics["towline_replica_lag_records", "flushed"], 0)
        self.assertIn("towline_replication_stalls_total 1", self.p1.http("/metrics")[1])

        r1.environment.clear()
        r1.stop()
        r1.start()
        status = self.wait_no_lag()
        self.assertEqual((status["resync"]["full_total"], status["resync"]["stalls"]), (0, 1))
        self.assert_same_data(self.p1, r1)

    def test_a_blocked_ack_direction_shows_as_lag_though_records_flow(self):
        relay = self.relay()
        r1 = self.replica("r1", relay.endpoint).start()
        fill(self.p1, 20)
        before = self.wait_no_lag()["resync"]
        relay.hold("up")
        first = fill(self.p1, 1, prefix="deaf/")
        r1.wait_applied(first)
        last = fill(self.p1, 1, prefix="deafer/")  # goes though the first was never acknowledged
        r1.wait_applied(last)
        status = self.p1.wait(lambda status: self.state(status) == "stalled", "stalled")
        lag = stages(status)
        self.assertTrue(is_zero(lag["sent"]), lag)
        for stage in STAGES[1:]:
            self.assertEqual(lag[stage]["records"], last - first + 1)
            self.assertGreater(lag[stage]["bytes"], 0)
            self.assertGreater(lag[stage]["seconds"], 1.5)
        self.assertEqual(r1.status()["state"], "streaming")  # it has everything, and hears the heartbeats
        relay.release()
        after = self.wait_no_lag()["resync"]
        self.assertEqual(after, {**before, "stalls": 1})  # still the same session

    def test_a_half_open_connection_is_noticed_by_both_ends(self):
        relay = self.relay()
        r1 = self.replica("r1", relay.endpoint).start()
        fill(self.p1, 20)
        self.wait_no_lag()
        relay.hold("up", "down")
        fill(self.p1, 5, prefix="cut/")
        status = self.p1.wait(lambda status: self.state(status) == "disconnected", "the primary notices", timeout=20)
        r1.wait_state("disconnected", timeout=20)
        lag = stages(status)
        for stage in STAGES:  # nobody knows how old it is, but how much it lacks
            self.assertEqual((lag[stage]["records"], lag[stage]["seconds"]), (5, None))
        self.assertNotIn(("towline_replica_lag_seconds", "applied"), self.metrics())
        relay.release()
        self.assertEqual(self.wait_no_lag()["resync"]["full_total"], 0)
        self.assert_same_data(self.p1, r1)

    def test_a_frozen_replica_stalls_then_counts_as_gone(self):
        r1 = self.replica("r1", self.p1).start()
        fill(self.p1, 20)
        self.wait_no_lag()
        r1.pause()
        fill(self.p1, 500, prefix="frozen/")
        status = self.p1.wait(lambda status: self.state(status) == "stalled", "stalled")
        lag = stages(status)
        self.assertEqual([lag[stage]["records"] for stage in STAGES[1:]], [500] * 3)
        self.assertGreater(lag["applied"]["seconds"], 1.5)
        status = self.p1.wait(lambda status: self.state(status) == "disconnected", "the primary notices", timeout=20)
        self.assertIsNone(stages(status)["applied"]["seconds"])
        r1.resume()
        self.assertEqual(self.wait_no_lag()["resync"]["full_total"], 0)
        self.assert_same_data(self.p1, r1)


if __name__ == "__main__":
    harness.main()
