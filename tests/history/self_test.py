#!/usr/bin/python3
"""The checker is shown to see what it is for: bad histories made by hand, good ones, and mutations of good ones."""

import copy
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import types
import unittest

import bad_histories
import checks
import model
import simulated

HERE = pathlib.Path(__file__).resolve().parent
GOOD = 40
MUTATIONS = 800


def violations(events):
    return checks.check(model.History(events))


# --- Mutations: one event of a good history is another than it was ---

def mutate(events, rng):
    """(name, indexes of the events touched, mutated events)"""
    name = rng.choice(("drop", "swap", "duplicate", "bump_term"))
    index = rng.randrange(1, len(events))
    mutated = copy.deepcopy(events)
    if name == "drop":
        del mutated[index]
        return name, (index,), mutated
    if name == "duplicate":
        mutated.insert(index, copy.deepcopy(mutated[index]))
        return name, (index,), mutated
    if name == "swap":
        # What two events of one sort say; each stays in its place and keeps its time.
        alike = [i for i, each in enumerate(mutated) if sort_of(each) == sort_of(mutated[index])]
        other = rng.choice(alike)
        mutated[index], mutated[other] = ({**mutated[other], **stamp(mutated[index])},
                                          {**mutated[index], **stamp(mutated[other])})
        return name, (index, other), mutated
    for fields in (mutated[index], mutated[index].get("position")):
        if fields and "term" in fields:
            fields["term"] += 1
            break
    return name, (index,), mutated


def sort_of(event):
    return (event["event"], event.get("type"), event.get("op"), event.get("node"))


def stamp(event):
    """What is not swapped: when it happened, and to which operation or session it belongs."""
    return {name: event[name] for name in ("at", "start", "id", "process", "session") if name in event}


def is_equivalent(name, indexes, before, after):
    """Whether the mutated history claims nothing that the cluster may not have done: it is the same, it says less, or what
    it says could have been so."""
    if before == after:
        return True
    event = before[indexes[0]]
    kind = event["event"]
    if kind == "node":
        return True  # for people
    if name == "drop":
        if kind in ("status", "resyncs", "heal", "state", "final", "ack"):
            return True  # what is not told is not looked at
        if kind == "converged":
            return converges_all_the_same(after)
        if kind == "op":
            return event["type"] != "invoke"  # the outcome is unknown then
        if kind == "streamed":
            return is_last_unacked(before, event)
        if kind == "stream":
            return not any(each["event"] in ("streamed", "ack") and each["session"] == event["session"] for each in before)
        if kind == "quarantined":
            return not any(each["event"] == "op" and each.get("type") == "ok" and (each.get("position") or {}).get("lsn") ==
                           event["lsn"] and each["position"]["term"] == event["term"] for each in before)
        return False
    if name == "duplicate":
        # Said twice is said once.
        return kind in ("status", "ack", "state", "final", "heal", "converged", "promotion", "justify", "quarantined") or \
            kind == "resyncs" and not event["decisions"]
    if name == "swap":
        return swap_is_harmless(before, after, indexes)
    if name == "bump_term":
        return bump_is_harmless(before, event)
    return False


def converges_all_the_same(events):
    times = [each["at"] for each in events if each["event"] == "converged"]
    bound = events[0]["liveness_seconds"]
    return all(any(each["at"] <= at <= each["at"] + bound for at in times) for each in events if each["event"] == "heal")


def is_last_unacked(events, event):
    session = [each for each in events if each["event"] in ("streamed", "ack") and each["session"] == event["session"]]
    later = session[session.index(event) + 1:]
    return not later


def swap_is_harmless(before, after, indexes):
    first, second = (before[index] for index in indexes)
    kind = first["event"]
    if kind in ("node", "heal", "converged"):
        return True
    if kind == "op":
        if first["type"] in ("fail", "info"):
            return True
        if first["type"] == "invoke" and first["op"] == "read":
            return reads_still_hold(after)
        if first["type"] == "invoke" and first["op"] == "write":
            return writes_are_unobserved(before, (first, second))
    # A node that goes back to a common point says so before it has heard of the new term.
    return kind == "status" and first["term"] == second["term"] and not first["slots"] and not second["slots"]


def writes_are_unobserved(events, invokes):
    """Whether nobody can tell what the two writes wrote: they never got anywhere."""
    values = {each["value"] for each in invokes}
    ends = {each["id"]: each["type"] for each in events if each["event"] == "op" and each["type"] != "invoke"}
    logged = {value for each in events if each["event"] in ("log", "quarantined") for _, value in each["puts"]}
    return not values & logged and all(ends.get(each["id"]) != "ok" for each in invokes)


def reads_still_hold(events):
    """Whether every read returned what its key had at its position, and covers its bookmark, as told by its definition:
    from the first record on, change by change."""
    log = [each for each in events if each["event"] == "log" and each["node"] == "n1"]
    questions = {each["id"]: each for each in events if each.get("type") == "invoke" and each["op"] == "read"}
    newest = {}
    for answer in (each for each in events if each.get("type") == "ok" and each["id"] in questions):
        question = questions[answer["id"]]
        bookmark, position = question.get("bookmark"), answer["position"]
        if position is None:
            continue
        if bookmark and (position["term"], position["lsn"]) < (bookmark["term"], bookmark["lsn"]):
            return False
        if log[position["lsn"] - 1]["term"] != position["term"]:
            continue
        state = None, None
        for record in log[:position["lsn"]]:
            for key, value in record["puts"]:
                if key == question["key"]:
                    state = value, record["lsn"]
        if state != (answer["value"], answer["modified_lsn"]):
            return False
        if bookmark and log[bookmark["lsn"] - 1]["term"] != bookmark["term"]:
            return False
        if bookmark and position["lsn"] < newest.get(question["process"], 0) <= bookmark["lsn"]:
            return False
        newest[question["process"]] = max(newest.get(question["process"], 0), position["lsn"]) if bookmark else \
            newest.get(question["process"], 0)
    return True


def bump_is_harmless(events, event):
    if "term" not in event and not (event.get("position") or {}).get("term"):
        return True  # there is no term in it: nothing was changed
    if event["event"] != "status":
        return False
    # A promise to a promotion that was asked for by then, which the node keeps.
    asked = 1 + sum(each["event"] == "promotion" and each["start"] <= event["at"] for each in events)
    later = [each["term"] for each in events if each["event"] == "status" and each["node"] == event["node"] and
             each["at"] > event["at"]]
    return event["term"] + 1 <= asked and all(term > event["term"] for term in later)


class SelfTest(unittest.TestCase):
    def test_bad_histories_made_by_hand(self):
        self.assertEqual(violations(bad_histories.base()), [])
        seen = {}
        for expected, name, events in bad_histories.bad_histories():
            with self.subTest(name):
                found = {violation.check for violation in violations(events)}
                self.assertIn(expected, found, name)
            seen[expected] = seen.get(expected, 0) + 1
        self.assertEqual(set(seen), {"FORMAT", *(f"C{i}" for i in range(1, 14))})
        self.assertGreaterEqual(min(seen.values()), 2)

    def test_every_check_is_needed(self):
        """Without it, one of its bad histories passes: no check only repeats another."""
        alone = set()
        for expected, _, events in bad_histories.bad_histories():
            if {violation.check for violation in violations(events)} == {expected}:
                alone.add(expected)
        self.assertEqual(alone, {"FORMAT", *(f"C{i}" for i in range(1, 14))})

    def test_good_histories(self):
        promotions = 0
        for seed in range(GOOD):
            events = simulated.good_history(seed)
            self.assertEqual(violations(events), [], f"seed {seed}")
            promotions += sum(each["event"] == "promotion" for each in events)
        self.assertGreaterEqual(promotions, GOOD)

    def test_the_beginning_of_a_term_that_was_given_up_whole(self):
        """A consumer may have seen it; but not if nobody was promoted to that term, or if the term goes on."""
        def record(lsn, term):
            return types.SimpleNamespace(lsn=lsn, term=term, puts=[], place=(term, lsn))

        def ghosts(promotions, timeline, quarantined=(record(2, 3),)):
            history = types.SimpleNamespace(
                logs={}, quarantined={"n1": quarantined}, reads=[], timeline=timeline, by_lsn={each.lsn: each for each in timeline},
                promotions=[{"ok": ok, "term": term} for term, ok in promotions],
                sessions={1: types.SimpleNamespace(process="c1", records=[record(1, 1), record(2, 3)])})
            return [each.check for each in checks.ghosts(history)]

        given_up = [record(1, 1), record(2, 2), record(3, 4)]
        goes_on = [record(1, 1), record(2, 2), record(3, 3)]
        self.assertEqual(ghosts([(2, True), (3, True), (4, True)], given_up), [])
        self.assertEqual(ghosts([(2, True), (3, False), (4, True)], given_up), ["C8"])
        self.assertEqual(ghosts([(2, True), (4, True)], given_up), ["C8"])
        self.assertEqual(ghosts([(2, True), (3, True), (4, True)], given_up, quarantined=()), ["C8"])
        self.assertEqual(ghosts([(2, True), (3, True)], goes_on), ["C8"])

    def test_mutations(self):
        rng = random.Random(1)
        flagged = equivalent = 0
        missed = []
        for number in range(MUTATIONS):
            events = simulated.good_history(number % GOOD)
            name, indexes, mutated = mutate(events, rng)
            if violations(mutated):
                flagged += 1
            elif is_equivalent(name, indexes, events, mutated):
                equivalent += 1
            else:
                missed.append((name, number, [events[index] for index in indexes]))
        print(f"{MUTATIONS} mutations: {flagged} flagged, {equivalent} equivalent, {len(missed)} missed", flush=True)
        self.assertLessEqual(len(missed), MUTATIONS // 100, missed[:5])
        self.assertGreater(flagged, MUTATIONS // 3)

    def test_the_program(self):
        with tempfile.TemporaryDirectory() as directory:
            good, bad, no_history = (pathlib.Path(directory) / name for name in ("good", "bad", "none"))
            good.write_text("".join(json.dumps(each) + "\n" for each in simulated.good_history(1)))
            events = bad_histories.base()
            bad_histories.without_replicated_write(events)
            bad.write_text("".join(json.dumps(each) + "\n" for each in events))
            no_history.write_text("{}\n")
            for paths, code, text in (([good], 0, "no violations"), ([good, bad], 1, "C1: "), ([no_history], 2, "not a history"),
                                      ([], 2, "checker.py")):
                result = subprocess.run([sys.executable, "-B", HERE / "checker.py", *paths], capture_output=True, text=True,
                                        stdin=subprocess.DEVNULL)
                self.assertEqual(result.returncode, code, result.stderr)
                self.assertIn(text, result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
