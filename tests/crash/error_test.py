#!/usr/bin/python3
"""System calls fail, are interrupted or do less than they were asked for.

Goal    After a failed write or sync of the log nothing is acknowledged any more and the process ends with code 13; lack
        of space for a new segment is only a refusal; what fails beside the log (spares, indexes, prunes) stops nothing.
        Interruptions and short writes are not even noticed. What was acknowledged is there afterwards, always.
Method  strace fails call n of a kind, once or from there on. The trace says which call on which file failed and what
        the process was doing; from that, `consequence` says what has to follow, by
        docs/adr/0011-failed-sync-is-final.md. strace cannot make a short write, so short_writes.cc does.
"""

import collections

import crash_lib
from crash_lib import (CHANGING, EXIT_DONE, EXIT_NOT_OPENED, EXIT_POISONED, EXIT_VIOLATION, READING, Ledger, check,
                       describe, injection, parse_trace, script, strace)

STRIDE = 1 if crash_lib.LONG else 6 * crash_lib.SLOW
NEW_SEGMENT = r"/tmp-\d+\.seg"
RENAMES = ("rename", "renameat", "renameat2")

NOTHING, FULL, POISON, NOT_OPENED, UNREADABLE = "nothing", "full", "poison", "not opened", "unreadable"


def consequence(call, first_open):
    """What has to follow when this call fails. `first_open`: there is no log yet."""
    if call.touches(r"O_DIRECT\b"):
        return NOTHING  # what cannot be written past the page cache is written through it
    reserves = call.error == "ENOSPC" and (call.name in RENAMES or call.touches(NEW_SEGMENT))
    if call.phase == "append":
        if call.name in ("unlink", "unlinkat"):
            return NOTHING  # what was given up after another failure
        return FULL if reserves else POISON
    if call.phase == "open":
        return NOTHING if reserves and not first_open else NOT_OPENED
    if call.phase in ("maintain", "prune"):
        return NOTHING
    return UNREADABLE  # the victim reads the log back


class ErrorTest(crash_lib.CrashTest):
    def points(self, calls, names, stride=STRIDE):
        """Per kind the calls to fail. Kinds with few calls lose nothing to the stride."""
        kinds = collections.defaultdict(list)
        for call in calls:
            if call.name in names:
                kinds[call.name].append(call)
        for kind in sorted(kinds):
            step = min(stride, max(1, len(kinds[kind]) // 4))
            yield kind, kinds[kind][self.random.randrange(step)::step]

    def run_failing(self, name, error, when):
        """Runs the script with an injected error. Returns the consequence that it had to have and had."""
        directory = self.fresh()
        log = self.directory / "trace"
        result = script(directory, prefix=strace(*injection(name, f"error={error}", when), log=log))
        what = f"{name} {when} {error}"
        calls = parse_trace(log.read_text(errors="replace"))
        injected = [call for call in calls if call.injected]
        self.assertTrue(injected, f"{what}: nothing was injected")
        expected = self.judge(calls, f"{what}, first {injected[0]!r}\n{describe(result)}")
        codes = {NOTHING: (EXIT_DONE,), FULL: (EXIT_DONE,), POISON: (EXIT_POISONED,),
                 NOT_OPENED: (EXIT_NOT_OPENED, EXIT_POISONED), UNREADABLE: (EXIT_DONE, EXIT_VIOLATION)}[expected]
        self.assertIn(result.returncode, codes, f"{what}, first {injected[0]!r}: {expected}\n{describe(result)}")
        self.assertNotIn("violation", result.stdout, what)
        wrong = check(directory, Ledger().feed(result.stdout))
        self.assertEqual(wrong, "", f"{what}, first {injected[0]!r}: {wrong}")
        return expected

    def judge(self, calls, what):
        """Walks the trace: the gravest consequence, after which nothing may be acknowledged."""
        worst = NOTHING
        acknowledged = refused = False
        for call in calls:
            if call.said is not None:
                self.assertFalse(call.said.startswith("acked") and worst in (POISON, NOT_OPENED),
                                 f"acknowledged after the failure: {call.said}: {what}")
                self.assertFalse(call.said.startswith("acked") and refused, f"not refused: {what}")
                acknowledged = acknowledged or call.said.startswith("recovered")
                refused = refused and not call.said.startswith("refused")
            if not call.injected or worst in (POISON, NOT_OPENED, UNREADABLE):
                continue
            now = consequence(call, first_open=not acknowledged)
            refused = refused or now == FULL
            worst = now if now != NOTHING else worst
        return worst

    def sweep(self, calls, names, error, whens, stride=STRIDE):
        for name, chosen in self.points(calls, names, stride):
            seen = collections.Counter()
            for call in chosen:
                for when in whens:
                    seen[self.run_failing(name, error, when.format(call.number, call.number + 4))] += 1
            print(f"  {error} {name}: {len(chosen)} calls x {len(whens)}: {dict(seen)}", flush=True)
            yield sum(seen.values()), seen

    def finish(self, swept, needed, also_in_long_form=()):
        total = 0
        seen = collections.Counter()
        for count, part in swept:
            total += count
            seen += part
        for consequence_ in (needed, *(also_in_long_form if crash_lib.LONG else ())):
            self.assertGreater(seen[consequence_], 0, f"no failure led to: {consequence_}")
        self.note(f"{total} failures: {dict(seen)}")

    def test_failed_writes_and_syncs(self):
        calls, _ = self.baseline()
        names = {"fdatasync", "fsync", "pwrite64"}
        self.finish(self.sweep(calls, names, "EIO", ("{0}", "{0}+")), POISON, (NOTHING, NOT_OPENED))

    def test_other_failed_calls(self):
        calls, _ = self.baseline(names=CHANGING | READING)
        names = (CHANGING | READING) - {"fdatasync", "fsync", "pwrite64"}
        self.finish(self.sweep(calls, names, "EIO", ("{0}",)), NOTHING, (POISON, NOT_OPENED))

    def test_no_space_for_a_new_segment(self):
        calls, _ = self.baseline()
        # An open that creates nothing needs no space.
        calls = [call for call in calls
                 if call.touches(NEW_SEGMENT) and (call.name != "openat" or call.touches("O_CREAT"))]
        names = {"openat", "pwrite64", "fdatasync", *RENAMES}
        self.finish(self.sweep(calls, names, "ENOSPC", ("{0}",), stride=1), FULL, (NOTHING, NOT_OPENED))

    def test_no_space_for_a_while(self):
        calls, _ = self.baseline()
        calls = [call for call in calls if call.phase != "open"]
        # In the log's own writes, whose place was reserved, it is a failure as any other.
        self.finish(self.sweep(calls, {"pwrite64"}, "ENOSPC", ("{0}..{1}",), stride=2 * STRIDE), POISON)
        calls = [call for call in calls if call.touches(NEW_SEGMENT)]
        self.finish(self.sweep(calls, RENAMES, "ENOSPC", ("{0}..{1}",), stride=1), FULL)

    def test_interrupted_calls(self):
        names = {"openat", "pwrite64", "fdatasync", "fsync", "ftruncate", *READING}
        calls, said = self.baseline(names=CHANGING | READING)
        log = self.directory / "trace"
        for offset in (0, 1):
            options = []
            for name in sorted(names):
                first = next(call.number for call in calls if call.name == name)
                options += injection(name, "error=EINTR", f"{first + offset}+2")
            directory = self.fresh()
            result = script(directory, prefix=strace(*options, log=log))
            self.assertEqual((result.returncode, result.stdout), (EXIT_DONE, said), describe(result))
            injected = collections.Counter(call.name for call in parse_trace(log.read_text(errors="replace"))
                                           if call.injected)
            self.assertEqual(set(injected), names)
            self.assertEqual(check(directory, Ledger().feed(result.stdout)), "")
            self.note(f"{sum(injected.values())} interruptions: {dict(injected)}")

    def test_short_writes(self):
        _, said = self.baseline()
        directory = self.fresh()
        log = self.directory / "shortened"
        result = script(directory, prefix=[crash_lib.SHORT_WRITES, log])
        if result.returncode == crash_lib.SKIPPED:
            self.fail("cannot trace")
        self.assertEqual((result.returncode, result.stdout), (EXIT_DONE, said), describe(result))
        self.assertGreater(int(log.read_text()), 50)
        self.assertEqual(check(directory, Ledger().feed(result.stdout)), "")
        self.note(f"{log.read_text().strip()} short writes")


if __name__ == "__main__":
    crash_lib.require_tracing()
    crash_lib.main()
