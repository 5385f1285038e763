#!/usr/bin/python3
"""A daemon is killed in front of the system calls that it makes to change files while the primary changes.

Goal    Whoever dies, and wherever: the nodes start again, one of them can be promoted, nothing that a replica had confirmed
        is lost, and all end on one line of history.
Method  A traced run counts the calls of each kind that one thread of the victim makes. Then strace kills the victim in
        front of call n of a kind, again and again in one cluster whose clients are recorded, and the checker has the last
        word. The long form takes every call, the short one a few at random.
"""

import collections
import contextlib
import pathlib
import re
import subprocess
import unittest

import grpc
import harness
from failover_checks import FailoverTest
from harness import LONG, wait_until

# What a primary decides by; its log takes the clients' writes all the time.
DECISIONS = ("control.a", "control.b", "slots.a", "slots.b")
CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "unlink")
KILLS = 4  # of the short form


def tracer_works():
    command = ["strace", "-qq", "-o", "/dev/null", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class Tracer:
    """strace on all threads of a running node, until the block is left or the node is gone."""

    def __init__(self, node, *arguments):
        self.node = node
        self.arguments = arguments

    def __enter__(self):
        self.process = subprocess.Popen(["strace", "-qq", "-f", *self.arguments, "-p", str(self.node.process.pid)],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._is_attached, f"strace is attached to {self.node.node_id}", timeout=20, interval=0.01)
        return self

    def _is_attached(self):
        try:
            threads = list((pathlib.Path("/proc") / str(self.node.process.pid) / "task").iterdir())
            return all("TracerPid:\t0\n" not in (thread / "status").read_text() for thread in threads)
        except OSError:  # a thread has ended, or it is dead already
            return not self.node.running

    def __exit__(self, *_):
        self.node.process.poll()
        self.process.terminate()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:  # it can miss that its victim has died, and wait for it
            self.process.kill()
            self.process.wait()
            if self.node.running:
                self.node.resume()  # it stops who it leaves


@unittest.skipUnless(tracer_works(), "strace cannot trace here")
class FailoverKillsTest(FailoverTest):
    def setUp(self):
        super().setUp()
        self.nodes_ = self.members()
        self.primary_ = self.nodes_[0]

    def others(self, *nodes):
        return [node for node in self.nodes_ if node not in nodes]

    def change(self, recorder, node, how):
        """The primary changes to `node`, or not; whether it did."""
        try:
            how(recorder, node)
            return True
        except (grpc.RpcError, AssertionError):
            return False

    def promote_once(self, recorder, node):
        assert self.try_promote(recorder, node)

    def switch_once(self, recorder, node):
        self.switchover(recorder, node)

    def count_calls(self, victim, change):
        """{call: most times that one thread made it} while `change` runs."""
        log = self.directory / "trace"
        with Tracer(victim, *self.paths(victim), "-o", str(log), "-e", "trace=" + ",".join(CALLS)):
            self.assertTrue(change())
        count = collections.Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(errors="replace"), re.M))
        most = collections.Counter()
        for (_, name), times in count.items():
            most[name] = max(most[name], times)
        return most

    def paths(self, victim):
        """Arguments that leave out what a primary does for its clients."""
        if victim is not self.primary_:
            return ()
        return tuple(word for name in DECISIONS for word in ("-P", str(victim.data_dir / name)))

    def choose(self, counted):
        places = [(name, number + 1) for name, times in sorted(counted.items()) for number in range(times)]
        self.assertGreater(len(places), KILLS, counted)
        return places if LONG else self.random.sample(places, KILLS)

    def recover(self, recorder):
        """Everybody runs, one of them is the primary, the rest follow it."""
        for node in self.nodes_:
            if not node.running:
                recorder.justify("rewind", 1, f"{node.node_id} comes back")
                recorder.justify("full", 1, f"{node.node_id} comes back")
                node.process.wait()
                node.launch()
        statuses = {node: node.wait(lambda status: status["state"] != "starting", "started") for node in self.nodes_}
        # A primary that starts asks its members first; whoever is behind a promise waits for somebody to be promoted.
        term = max(status["history"][-1]["term"] for status in statuses.values())
        newest = [node for node, status in statuses.items() if status["history"][-1]["term"] == term]

        def primary():
            for node in newest:
                status = node.try_status()
                if status and status["role"] == "primary" and status["state"] == "writable":
                    return node
            for node in self.nodes_:
                if self.try_promote(recorder, node):
                    return node
            return None

        self.primary_ = wait_until(primary, "a primary", timeout=60, interval=0.2, describe=lambda: recorder.last("node"))
        self.primary_.wait_state("writable")
        self.wait_follows(self.primary_, *self.others(self.primary_))
        self.wait_going_on(recorder)

    def kill_in(self, recorder, victim, node, how, name, number):
        """`node` is to become the primary, and `victim` dies on the way, or the change is over first."""
        recorder.did(victim, f"dies in front of {name} {number}")
        with Tracer(victim, *self.paths(victim), "-o", "/dev/null", "-e", f"trace={name}", "-e",
                    f"inject={name}:signal=SIGKILL:when={number}"):
            done = self.change(recorder, node, how)
        killed = not victim.running or self.is_dying(victim)
        print(f"{name} {number} of {victim.node_id}: {'killed' if killed else 'not killed'}, "
              f"{'changed' if done else 'not changed'}", flush=True)
        return killed

    def is_dying(self, victim):
        with contextlib.suppress(subprocess.TimeoutExpired):
            victim.process.wait(0.5)
            return True
        return False

    def kills(self, is_promotion, is_victim_the_candidate):
        """One kill per chosen call."""
        killed = 0
        with self.recorder(self.nodes_, replicated=2) as recorder:
            places = None
            while places is None or places:
                self.wait_going_on(recorder)
                old = self.primary_
                candidate = self.random.choice(self.others(old))
                if is_promotion:
                    recorder.did(old, "kill")
                    old.kill9()
                how = self.promote_once if is_promotion else self.switch_once
                victim = candidate if is_victim_the_candidate else old
                if places is None:
                    counted = self.count_calls(victim, lambda: self.change(recorder, candidate, how))
                    places = self.choose(counted)
                    print(f"counted: {dict(counted)}", flush=True)
                else:
                    killed += self.kill_in(recorder, victim, candidate, how, *places.pop())
                self.recover(recorder)
            self.check(recorder, self.primary_)
        self.assertGreater(killed, 0)

    def test_the_candidate_dies_while_it_is_promoted(self):
        self.kills(is_promotion=True, is_victim_the_candidate=True)

    def test_the_candidate_dies_during_a_switchover(self):
        self.kills(is_promotion=False, is_victim_the_candidate=True)

    def test_the_primary_dies_during_a_switchover(self):
        self.kills(is_promotion=False, is_victim_the_candidate=False)


if __name__ == "__main__":
    harness.main()
