#!/usr/bin/python3
"""A replica is killed in front of each system call that changes files while it loads a snapshot and switches to it.

Goal    After every kill the directory opens with exactly one whole state: the old one, or the new one once the switch
        was made, never neither and never a mixture; and the load goes on to its end.
Method  As kill_test.py, with install_script in place of wal_script: a traced run counts the calls of each kind, strace
        kills a run in front of call n of a kind, what is left is checked, a second run is killed at a random call, what
        that leaves is checked, and a third one completes.
"""

import collections
import shutil

import crash_lib
from crash_lib import BIN, CHANGING, EXIT_DONE, KILLED, describe, injection, parse_trace, run, strace

INSTALL_SCRIPT = str(BIN / "install_script")
END_LSN = 107  # of the log in install_script.cc
STRIDE = 1 if crash_lib.LONG else 7 * crash_lib.SLOW
NOT_OURS = r'"(/usr)?/lib|"/(etc|proc|sys)/'  # of the program's start


def install(mode, directory, prefix=()):
    return run([*prefix, INSTALL_SCRIPT, mode, directory])


class InstallTest(crash_lib.CrashTest):
    def setUp(self):
        super().setUp()
        self.template = self.fresh("template")
        prepared = install("prepare", self.template)
        self.assertEqual(prepared.returncode, EXIT_DONE, describe(prepared))
        self.resumed = 0   # runs that went on with what an earlier one had made durable
        self.states = collections.Counter()

    def replica(self):
        """A directory of a replica that has not begun its load."""
        directory = self.directory / "node"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.template, directory)
        return directory

    def check(self, directory, switched, what):
        """Returns the state that is found."""
        result = install("check", directory)
        self.assertEqual(result.returncode, EXIT_DONE, f"{what}: {describe(result)}")
        state, lsn = result.stdout.split()
        if switched:
            self.assertEqual(state, "new", f"{what}: the switch was undone")
        self.states[state] += 1
        return state, int(lsn)

    def run_killed(self, mode, directory, name, number):
        prefix = strace(*injection(name, "signal=SIGKILL", number), trace=f"trace={name}")
        result = install(mode, directory, prefix)
        self.assertIn(result.returncode, (KILLED, EXIT_DONE), f"{name} {number}: {describe(result)}")
        self.resumed += "\nfound " in "\n" + result.stdout and "found 0 " not in result.stdout
        return result

    def kill(self, mode, name, number, numbers):
        directory = self.replica()
        what = f"killed in front of {name} {number}"
        first = self.run_killed(mode, directory, name, number)
        self.assertEqual(first.returncode, KILLED, f"{what}: {describe(first)}")
        state, _ = self.check(directory, "switched\n" in first.stdout, what)
        second = self.random.choice(sorted(numbers))
        at = self.random.choice(numbers[second])
        what += f", then in front of {second} {at} (seed {crash_lib.SEED})"
        result = self.run_killed(mode, directory, second, at)
        state, _ = self.check(directory, state == "new" or "switched\n" in result.stdout, what)
        last = install(mode, directory)
        self.assertEqual(last.returncode, EXIT_DONE, f"{what}: {describe(last)}")
        self.assertEqual(self.check(directory, True, what), ("new", END_LSN), what)
        self.assertEqual([path.name for path in (directory / "gen").iterdir()], ["2"], what)

    def test_kill_in_front_of_every_call_of_an_rdb_stream(self):
        self.kill_everywhere("run")

    def test_kill_in_front_of_every_call_of_files(self):
        self.kill_everywhere("files")

    def kill_everywhere(self, mode):
        log = self.directory / "trace"
        result = install(mode, self.replica(), strace(log=log))
        self.assertEqual(result.returncode, EXIT_DONE, describe(result))
        self.assertIn("\nresumed ", "\n" + result.stdout, "the load has one stream")
        calls = [call for call in parse_trace(log.read_text(errors="replace"))
                 if call.name in CHANGING and not call.touches(NOT_OURS)]
        numbers = collections.defaultdict(list)
        for call in calls:
            numbers[call.name].append(call.number)
        total = 0
        for name, points in sorted(numbers.items()):
            stride = min(STRIDE, max(1, len(points) // 4))
            chosen = points[self.random.randrange(stride)::stride]
            for number in chosen:
                self.kill(mode, name, number, numbers)
            total += len(chosen)
            print(f"  {name}: {len(chosen)} of {len(points)} calls", flush=True)
        self.note(f"{total} kills of {len(calls)} calls; found {dict(self.states)}; {self.resumed} loads went on")
        self.assertGreater(self.states["old"], 0)
        self.assertGreater(self.resumed, 0)


if __name__ == "__main__":
    crash_lib.require_tracing()
    crash_lib.main()
