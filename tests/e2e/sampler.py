"""Measuring beside a test or a benchmark."""

import threading


class Sampler:
    """Calls `measure` about every `interval` seconds, and keeps the answers."""

    def __init__(self, measure, interval=0.02):
        self.values = []
        self._measure = measure
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def highest(self):
        return max(self.values, default=0)

    def _run(self):
        while not self._stop.wait(self._interval):
            self.values.append(self._measure())

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
