"""Asks nodes how an owner would go on, and checks the answer and what is counted."""

import json
import re

import harness
import pull_client
from harness import NodeTest, wait_until
from pull_client import PullStream, SnapshotStream, history, replica_start
from towline.v1 import slot_service_pb2, types_pb2

MIB = 1 << 20
# A small log that is pruned soon.
OPTIONS = {"wal.segment_bytes": "1MiB", "wal.keep_bytes": "6MiB", "wal.spare_segments": "1",
           "bootstrap.replay_max_bytes": "2MiB", "store.flush_bytes": "1MiB", "store.flush_interval": "100ms",
           "slots.persist_interval": "50ms", "wal.scrub_rate": "0B"}
ELSEWHERE = 0xc3  # term_id of a promotion that no log holds
REFUSALS = ("refuse", "retry_after")


def counted(metrics, family):
    """{'partial/resumed': 3, ...} of a metric with the labels decision and reason."""
    found = {}
    for name, value in metrics.items():
        labels = re.fullmatch(family + r'\{decision="(\w+)",reason="(\w+)"\}', name)
        if labels:
            found[f"{labels[1]}/{labels[2]}"] = int(value)
    return found


def decisions(node):
    """Counters of both kinds by decision and reason, as status and metrics tell. They are asked one after the other, so
    that they differ while something is being counted."""
    return wait_until(lambda: agreed_decisions(node), "status and metrics count the same", timeout=5)


def agreed_decisions(node):
    metrics = node.metrics()
    by_kind = {"resync": counted(metrics, "towline_resync_decisions_total"),
               "consumer": counted(metrics, "towline_consumer_decisions_total")}
    resync = node.towctl_json("status")["resync"]
    same = resync["by_reason"] == by_kind["resync"]
    for total, decision in (("partial_total", "partial"), ("full_total", "full"), ("rewind_total", "rewind"),
                            ("refused_total", "refuse")):
        expected = sum(count for key, count in by_kind["resync"].items() if key.split("/")[0] == decision)
        same = same and resync[total] == expected == metrics[f"towline_resync_{total}"]
    return by_kind if same else None


class PlannerTest(NodeTest):
    def assert_slot(self, node, name, state, cause=None):
        """The slot as `towctl status` and the metrics show it; returns the former."""
        shown = {"state": state, "cause": cause}

        def matches():
            slots = {slot["name"]: slot for slot in node.towctl_json("status")["slots"]}
            slot = slots.get(name)
            shown["last"] = slot
            if slot is None or slot["state"] != state:
                return None
            if (slot["invalidation"] or {}).get("cause") != cause:
                return None
            metrics = node.metrics()
            one_hot = {other: metrics[f'towline_slot_state{{slot="{name}",state="{other}"}}']
                       for other in ("active", "inactive", "bootstrapping", "rewinding", "invalidated")}
            return slot if one_hot == {other: float(other == state) for other in one_hot} else None

        return wait_until(matches, f"slot {name} is {state} {cause or ''}", describe=lambda: shown["last"])

    def assert_counted(self, node, start, before, *keys):
        """What was counted since `before` is `keys`, once each."""
        kind = "resync" if start.kind == pull_client.REPLICA else "consumer"
        expected = {name: dict(counts) for name, counts in before.items()}
        for key in keys:
            expected[kind][key] = expected[kind].get(key, 0) + 1
        wait_until(lambda: decisions(node) == expected, f"counted is {expected}", describe=lambda: decisions(node))
        return expected

    def logged_row(self, node, start):
        """Row of the newest decision about the slot."""
        lines = [line for line in node.log().splitlines() if f" resync_decision node={node.node_id} node={start.slot} "
                 in line]
        return re.search(r" row=(\w+) ", lines[-1])[1]

    def ask(self, node, row, decision, reason, start, numbers=()):
        """Asks and checks the answer, which names `numbers` and is what PlanResume said before without any effect. Then
        takes the decision to its end and checks that it counts once, when it takes effect."""
        before = decisions(node)
        slots = node.status()["slots"]
        planned = pull_client.plan(node, start).plan
        self.assertEqual(decisions(node), before, "a plan counts nothing")
        self.assertEqual([slot["name"] for slot in node.status()["slots"]], [slot["name"] for slot in slots])
        with PullStream(node, start) as stream:
            started = stream.started
            self.assertEqual((stream.decision, started.reason), (decision, reason), started.message)
            self.assertEqual(self.logged_row(node, start), row)
            for name in ("decision", "reason", "message", "next_action", "cluster_id", "from_lsn", "common_lsn",
                         "first_retained_lsn", "retry_after_ms", "term"):
                self.assertEqual(getattr(planned, name), getattr(started, name), name)
            for number in numbers:
                self.assertRegex(started.message, rf"\b{number}\b")
            key = f"{decision}/{reason}"
            if decision in REFUSALS:
                self.assertGreater(started.retry_after_ms, 0)
                counted = self.assert_counted(node, start, before, key)
                with PullStream(node, start) as again:
                    self.assertEqual(again.started.reason, reason)
                self.assertEqual(decisions(node), counted, "the same refusal of the same owner counts once")
                return started
            self.assertEqual(decisions(node), before, "nothing has taken effect yet")
            if decision == "partial":
                self.stream(node, stream, start, before, key)
            elif decision == "full":
                self.load(node, start, before, key)
            else:
                self.rewind(node, start, started, before, key)
            return started

    def wait_joined(self, node, start):
        """Who streams from a primary joins its members: a record that comes a little later, behind which no LSN moves by
        itself. The name must not have joined before."""
        if start.kind == pull_client.REPLICA and node.status()["role"] == "primary":
            node.wait(lambda status: start.slot in [member["node_id"] for member in status["members"]],
                      f"{start.slot} is a member")

    def stream(self, node, stream, start, before, key):
        """Reads to the end and acknowledges it."""
        self.assertNotEqual(stream.started.session_id, 0)
        self.wait_joined(node, start)
        stream.receive(stream.started.durable_lsn)
        stream.ack(stream.lsn)
        self.assert_counted(node, start, before, key)
        self.assert_slot(node, start.slot, "active")
        stream.ack(stream.lsn)
        node.wait_slot(start.slot, lambda slot: slot["confirmed_lsn"] == stream.lsn, "the ack is taken")
        self.assert_counted(node, start, before, key)
        stream.close()
        self.assert_slot(node, start.slot, "inactive")

    def load(self, node, start, before, key):
        snapshot = SnapshotStream(node, start)
        self.assertEqual(snapshot.header.reason, key.split("/")[1])
        slot = self.assert_slot(node, start.slot, "bootstrapping")
        position = snapshot.header.position
        self.assertEqual(slot["confirmed_lsn"], position.lsn)
        self.assertGreater(snapshot.finish().chunks, 0)
        self.assertEqual(decisions(node), before, "a snapshot alone is no resync")
        behind = replica_start(start.slot, incarnation=start.incarnation, cluster_id=position.cluster_id,
                               lsn=position.lsn, chain=position.chain, first_retained_lsn=position.lsn + 1,
                               history=snapshot.header.history)
        with PullStream(node, behind) as stream:
            self.assertEqual((stream.decision, stream.started.from_lsn), ("partial", position.lsn + 1))
            self.stream(node, stream, start, before, key)

    def rewind(self, node, start, started, before, key):
        slot = self.assert_slot(node, start.slot, "rewinding")
        self.assertEqual(slot["confirmed_lsn"], started.common_lsn, "it holds what the owner will need")
        back = self.at(started.common_lsn, start.slot, incarnation=start.incarnation)
        with PullStream(node, back) as stream:
            self.assertEqual((stream.decision, stream.started.from_lsn), ("partial", started.common_lsn + 1))
            self.stream(node, stream, start, before, key)

    def wait_pruned(self, node):
        """Waits until the log has been pruned and nothing more is removed; returns the first LSN that is left."""
        seen = []

        def settled():
            status = node.status()
            seen.append(status["wal"]["first_lsn"])
            # What the store has not flushed yet will be removed later.
            flushed = status["store"]["persisted_lsn"] >= status["wal"]["durable_lsn"]
            return flushed and seen[-1] > 400 and seen[-8:] == [seen[-1]] * 8

        wait_until(settled, "the log is pruned", interval=0.05, describe=lambda: seen[-8:])
        return seen[-1]

    # --- Starts ---

    def learn(self, node):
        """Remembers the line that `node` is on."""
        status = node.status()
        self.node = node
        self.chains = {}  # LSN -> chain behind it
        self.cluster_id = status["cluster_id"]
        self.history = [(entry["term"], entry["start_lsn"], int(entry["term_id"], 16)) for entry in status["history"]]

    def chain(self, lsn):
        if lsn not in self.chains:
            dump = harness.towctl("wal", "dump", "--data-dir", self.node.data_dir, "--from", lsn, "-o", "json")
            for record in map(json.loads, dump.stdout.splitlines()):
                self.chains[record["lsn"]] = int(record["chain"], 16)
        return self.chains[lsn]

    def at(self, lsn, slot, kind=replica_start, **fields):
        """A start from that record of our line."""
        own = [entry for entry in self.history if entry[1] <= lsn]
        defaults = dict(cluster_id=self.cluster_id, lsn=lsn, history=history(*own))
        if kind is replica_start:
            defaults.update(first_retained_lsn=1)
        if "chain" not in fields and lsn <= self.node.status()["wal"]["durable_lsn"]:
            defaults.update(chain=self.chain(lsn))
        return kind(slot, **{**defaults, **fields})

    def elsewhere(self, common, lsn, slot, kind=replica_start, **fields):
        """A start from a record of another term 2, which left our line behind record `common`."""
        return self.at(lsn, slot, kind, chain=1,
                       history=history(self.history[0], (2, common + 1, ELSEWHERE)), **fields)

    def exact_from(self, lsn, term_id=None, **fields):
        term, _, own_id = self.history[-1]
        return types_pb2.Position(cluster_id=self.cluster_id, lsn=lsn, term=term, term_id=term_id or own_id, **fields)

    def drop_slots(self, node):
        for slot in node.status()["slots"]:
            node.client.slots.DropSlot(slot_service_pb2.DropSlotRequest(name=slot["name"], force=True))
