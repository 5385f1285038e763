"""Ctrl-C and SIGTERM where they do no harm: an exception in the middle of gRPC's Python code can leave one of its locks
taken, and the program hangs at its end."""

import signal
import time


class Interrupt:
    """Remembers a signal until the program asks for it. A second signal kills the process."""

    def __init__(self):
        self._triggered = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number, _frame):
        self._triggered = True
        signal.signal(number, signal.SIG_DFL)

    def check(self):
        """KeyboardInterrupt if a signal came."""
        if self._triggered:
            raise KeyboardInterrupt

    def sleep(self, seconds):
        """Sleeps; KeyboardInterrupt as soon as a signal comes."""
        deadline = time.monotonic() + seconds
        self.check()
        while time.monotonic() < deadline:
            time.sleep(min(seconds, 0.05))
            self.check()
