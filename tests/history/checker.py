#!/usr/bin/python3
"""Checks recorded histories: exit code 0 if they hold, 1 if something is wrong, 2 if a file cannot be read.

  tests/history/checker.py HISTORY.jsonl...
"""

import sys

import checks
import model

SHOWN = 20


def report(name, history, violations, out):
    writes = history.writes
    outcomes = {outcome: sum(write.outcome == outcome for write in writes) for outcome in model.COMPLETIONS}
    discarded = sum(write.ok and write.position is not None and not history.is_final(write.position) for write in writes)
    print(f"{name}: {len(writes)} writes ({outcomes['ok']} ok, {outcomes['fail']} refused, {outcomes['info']} unknown, "
          f"{discarded} acknowledged and discarded), {len(history.reads)} reads, {len(history.sessions)} streams, "
          f"{len(history.timeline)} records, {sum(each['ok'] for each in history.promotions)} promotions: "
          f"{len(violations) or 'no'} violations", file=out)
    for violation in violations[:SHOWN]:
        print(f"  {violation}", file=out)
    if len(violations) > SHOWN:
        print(f"  and {len(violations) - SHOWN} more", file=out)


def main(paths):
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    found = 0
    for path in paths:
        try:
            history = model.History(model.load(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"{path}: not a history: {error!r}", file=sys.stderr)
            return 2
        violations = checks.check(history)
        report(path, history, violations, sys.stdout)
        found += len(violations)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
