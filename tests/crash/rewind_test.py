#!/usr/bin/python3
"""A replica is killed in front of each system call that changes files while it goes back to its upstream's line.

Goal    After every kill the directory opens with exactly one line of history: the old one, or the new one once the switch
        was made; what was given up is in quarantine then; and the rewind goes on to its end.
Method  As install_test.py, with rewind_script as the victim: a traced run counts the calls of each kind, strace kills a run
        in front of call n of a kind, what is left is checked, a second run is killed at a random call, what that leaves is
        checked, and a third one completes.
"""

import collections
import shutil

import crash_lib
from crash_lib import BIN, CHANGING, EXIT_DONE, KILLED, describe, injection, parse_trace, run, strace

REWIND_SCRIPT = str(BIN / "rewind_script")
END_LSN = 50  # of the new line in rewind_script.cc
STRIDE = 1 if crash_lib.LONG else 5 * crash_lib.SLOW
CALLS = CHANGING | {"link", "linkat"}
NOT_OURS = r'"(/usr)?/lib|"/(etc|proc|sys)/'  # of the program's start


def rewind(mode, directory, prefix=()):
    return run([*prefix, REWIND_SCRIPT, mode, directory])


class RewindTest(crash_lib.CrashTest):
    def setUp(self):
        super().setUp()
        self.template = self.fresh("template")
        prepared = rewind("prepare", self.template)
        self.assertEqual(prepared.returncode, EXIT_DONE, describe(prepared))
        self.states = collections.Counter()

    def replica(self):
        """A directory of a replica that has not begun to go back."""
        directory = self.directory / "node"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.template, directory)
        return directory

    def check(self, directory, switched, what):
        """Returns the line that is found, and where it ends."""
        result = rewind("check", directory)
        self.assertEqual(result.returncode, EXIT_DONE, f"{what}: {describe(result)}")
        line, lsn = result.stdout.split()
        if switched:
            self.assertEqual(line, "new", f"{what}: the switch was undone")
        self.states[line] += 1
        return line, int(lsn)

    def run_killed(self, directory, name, number):
        result = rewind("run", directory, strace(*injection(name, "signal=SIGKILL", number), trace=f"trace={name}"))
        self.assertIn(result.returncode, (KILLED, EXIT_DONE), f"{name} {number}: {describe(result)}")
        return result

    def kill(self, name, number, numbers):
        directory = self.replica()
        what = f"killed in front of {name} {number}"
        first = self.run_killed(directory, name, number)
        self.assertEqual(first.returncode, KILLED, f"{what}: {describe(first)}")
        line, _ = self.check(directory, "switched\n" in first.stdout, what)
        second = self.random.choice(sorted(numbers))
        at = self.random.choice(numbers[second])
        what += f", then in front of {second} {at} (seed {crash_lib.SEED})"
        result = self.run_killed(directory, second, at)
        self.check(directory, line == "new" or "switched\n" in result.stdout, what)
        last = rewind("run", directory)
        self.assertEqual(last.returncode, EXIT_DONE, f"{what}: {describe(last)}")
        self.assertEqual(self.check(directory, True, what), ("new", END_LSN), what)
        self.assertEqual([path.name for path in (directory / "gen").iterdir()], ["2"], what)

    def test_kill_in_front_of_every_call(self):
        log = self.directory / "trace"
        result = rewind("run", self.replica(), strace(log=log, trace="trace=" + ",".join(sorted(CALLS | {"write"}))))
        self.assertEqual(result.returncode, EXIT_DONE, describe(result))
        calls = [call for call in parse_trace(log.read_text(errors="replace"))
                 if call.name in CALLS and not call.touches(NOT_OURS)]
        numbers = collections.defaultdict(list)
        for call in calls:
            numbers[call.name].append(call.number)
        self.assertTrue(numbers.keys() & {"link", "linkat"}, numbers.keys())
        total = 0
        for name, points in sorted(numbers.items()):
            stride = min(STRIDE, max(1, len(points) // 4))
            chosen = points[self.random.randrange(stride)::stride]
            for number in chosen:
                self.kill(name, number, numbers)
            total += len(chosen)
            print(f"  {name}: {len(chosen)} of {len(points)} calls", flush=True)
        self.note(f"{total} kills of {len(calls)} calls; found {dict(self.states)}")
        self.assertGreater(self.states["old"], 0)


if __name__ == "__main__":
    crash_lib.require_tracing()
    crash_lib.main()
