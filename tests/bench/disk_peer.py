"""The disk itself in bootstrap_bench.py: one writer, that does nothing else with as many bytes."""

import concurrent.futures
import mmap
import os
import time

PIECE = 1 << 20


def _open(path, flags):
    """Past the page cache where the file system can."""
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError:
        return os.open(path, flags, 0o600)


def _pieces(path, flags, size, operation):
    """Calls `operation` with the file and memory that is aligned until `size` bytes are through, and syncs."""
    file = _open(path, flags)
    try:
        with mmap.mmap(-1, PIECE) as memory:
            for _ in range(size // PIECE):
                assert operation(file, memory) == PIECE
        os.fdatasync(file)
    finally:
        os.close(file)


def _write(path, size):
    _pieces(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, size, os.write)


def _read(path, size):
    _pieces(path, os.O_RDONLY, size, lambda file, memory: os.readv(file, [memory]))


class Disk:
    name = "disk"
    version = "the disk below the directory of this run"
    what = "writing as many bytes, 1 MiB at a time and past the page cache, and a sync"

    def __init__(self, bench):
        self._directory = bench.directory
        self._bytes = max(bench.data.bytes, PIECE)

    @staticmethod
    def missing():
        return False

    def prepare(self):
        """Nothing is loaded."""

    def settle(self):
        os.sync()

    def source_files(self):
        return []

    def _copy(self):
        start = time.monotonic()
        _write(self._directory / "disk-written", self._bytes)
        return time.monotonic() - start

    def bootstrap(self):
        before = time.process_time()
        seconds = self._copy()
        (self._directory / "disk-written").unlink()
        return {"seconds": seconds, "cpu_seconds": {"writer": time.process_time() - before},
                "snapshot_bytes": self._bytes // PIECE * PIECE}


class DiskCopy(Disk):
    name = "disk-copy"
    what = "as disk, while as many bytes are read: a source whose files are not in the page cache"

    def _copy(self):
        source = self._directory / "disk-read"
        _write(source, self._bytes)
        os.sync()
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
            start = time.monotonic()
            reading = executor.submit(_read, source, self._bytes)
            _write(self._directory / "disk-written", self._bytes)
            reading.result()
            seconds = time.monotonic() - start
        source.unlink()
        return seconds
