#!/usr/bin/python3
"""The process is killed in front of each of its system calls that changes files.

Goal    What was acknowledged is there after every kill, recovery never refuses, and the log goes on.
Method  A traced run counts the calls of each kind. Then strace kills a run of the same script in front of call n of a
        kind, for each kind and n (short form: every few n); the recovery that follows is killed too at a random call;
        then everything is checked. One more run per kind, with n behind the last call, has to complete.
"""

import collections

import crash_lib
from crash_lib import EXIT_DONE, KILLED, Ledger, check, describe, injection, run, script, strace

STRIDE = 1 if crash_lib.LONG else 2 * crash_lib.SLOW


class KillTest(crash_lib.CrashTest):
    def test_kill_in_front_of_every_call(self):
        calls, _ = self.baseline()
        numbers = collections.defaultdict(list)
        for call in calls:
            numbers[call.name].append(call.number)
        self.assertTrue([call for call in calls if call.touches(r'/\d{20}\.seg".*/spare-')], "no segment is recycled")
        total = 0
        in_recovery = 0
        for name, points in sorted(numbers.items()):
            # Kinds with few calls lose nothing to the stride.
            stride = min(STRIDE, max(1, len(points) // 4))
            chosen = points[self.random.randrange(stride)::stride]
            for number in chosen:
                in_recovery += self.kill(name, number, numbers)
            total += len(chosen)
            self.run_killed(self.fresh(), name, points[-1] + 1, EXIT_DONE)
            print(f"  {name}: {len(chosen)} of {len(points)} calls", flush=True)
        self.note(f"{total} kills of {len(calls)} calls, {in_recovery} in the recovery that followed")
        self.assertGreater(in_recovery, 0)

    def run_killed(self, directory, name, number, code):
        result = script(directory, prefix=strace(*injection(name, "signal=SIGKILL", number), trace=f"trace={name}"))
        self.assertEqual(result.returncode, code, f"{name} {number}: {describe(result)}")
        return Ledger().feed(result.stdout)

    def kill(self, name, number, numbers):
        """Returns whether the recovery was killed too."""
        directory = self.fresh()
        ledger = self.run_killed(directory, name, number, KILLED)
        # Recovery makes few calls of a kind, behind those of the program's start.
        second = self.random.choice(sorted(numbers))
        at = numbers[second][0] + self.random.randrange(12)
        arguments = ["check", directory, *ledger.arguments()]
        prefix = strace(*injection(second, "signal=SIGKILL", at), trace=f"trace={second}")
        result = run([*prefix, crash_lib.WAL_SCRIPT, *arguments])
        ledger.feed(result.stdout)
        what = f"killed in front of {name} {number}, then in recovery in front of {second} {at} (seed {crash_lib.SEED})"
        self.assertIn(result.returncode, (KILLED, EXIT_DONE), f"{what}: {describe(result)}")
        wrong = check(directory, ledger, watermark=number % 2 == 0)
        self.assertEqual(wrong, "", f"{what}: {wrong}")
        return result.returncode == KILLED


if __name__ == "__main__":
    crash_lib.require_tracing()
    crash_lib.main()
