"""What the page cache holds of the files of a source. Left to itself that varies: some machines take from it what has
not been read for seconds."""

import contextlib
import os

PIECE = 4 << 20


def _open_each(directory):
    for path in sorted(directory.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # the source goes on meanwhile
            if path.is_file() and not path.is_symlink():
                with open(path, "rb", buffering=0) as file:
                    yield file


def fill(directory):
    """Reads all files below `directory`."""
    for file in _open_each(directory):
        while file.read(PIECE):
            pass


def drop(directory):
    """Has their pages forgotten; what is not on the disk yet stays."""
    for file in _open_each(directory):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
