"""Waits on conditions; the standard library is enough."""

import os
import time

SLOW = float(os.environ.get("TOWLINE_SLOW", "1"))


def wait_until(condition, what, timeout=30.0, interval=0.02, describe=None):
    """Polls `condition` until it returns something true, and returns that. AssertionError after `timeout` seconds, with
    what `describe()` says."""
    deadline = time.monotonic() + timeout * SLOW
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            detail = f"; last: {describe()}" if describe else ""
            raise AssertionError(f"waited {timeout * SLOW:g} s in vain for: {what}{detail}")
        time.sleep(interval)
