"""A copy of a cluster's state in an SQLite database, with the position of the log that it shows.

State and position change in one transaction: whenever the program or the machine dies, the database holds exactly the
records up to its position, each of them once. That is all that exactly-once needs.
"""

import contextlib
import sqlite3
import time

from towline.v1 import types_pb2

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
  key BLOB PRIMARY KEY,            -- compared byte by byte, as Towline does
  value BLOB NOT NULL,
  expire_at_ms INTEGER NOT NULL,   -- 0 = never
  modified_lsn INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
  lsn INTEGER, number INTEGER,     -- of the record, and of the operation in it
  topic BLOB NOT NULL, payload BLOB NOT NULL,
  PRIMARY KEY (lsn, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  cluster_id TEXT NOT NULL,
  lsn INTEGER NOT NULL,
  chain TEXT NOT NULL              -- 16 hex digits: SQLite has no unsigned 64-bit integers
);
"""
TIME_MAX_MS = 2**63 - 1  # the largest integer of SQLite; later is never as well


class Copy:
    """One database. For one process and one thread; others may read it at the same time."""

    def __init__(self, path):
        self._db = sqlite3.connect(path, isolation_level=None)  # we say where a transaction begins
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # a commit survives a power loss, so it may be acked
        self._db.executescript(SCHEMA)

    def close(self):
        self._db.close()

    def position(self):
        """What the copy shows: a Position, or None as long as there is nothing."""
        row = self._db.execute("SELECT cluster_id, lsn, chain FROM position").fetchone()
        return row and types_pb2.Position(cluster_id=row[0], lsn=row[1], chain=int(row[2], 16))

    def get(self, key):
        """The value, or None. A key that has expired is still here until its delete arrives, so readers hide it."""
        now_ms = time.time_ns() // 1_000_000
        row = self._db.execute("SELECT value FROM entries WHERE key = ? AND (expire_at_ms = 0 OR expire_at_ms > ?)",
                               (key, now_ms)).fetchone()
        return row and row[0]

    def replace(self, pages):
        """Takes the pages of a pinned scan in place of what there was; returns the number of entries. Messages stay: a
        scan has none."""
        count = 0
        with self._transaction():
            self._db.execute("DELETE FROM entries")
            for page in pages:
                self._db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)",
                                     ((entry.key, entry.value, min(entry.expire_at_ms, TIME_MAX_MS),
                                       entry.modified_lsn) for entry in page.entries))
                count += len(page.entries)
            self._save_position(page.position)  # the same one in every page
        return count

    def apply(self, records):
        """Takes records that follow on the position, all or none of them."""
        with self._transaction():
            position = self.position()
            for record in records:
                if record.lsn != position.lsn + 1:
                    raise ValueError(f"record {record.lsn} does not follow on {position.lsn}")
                self._apply_change(record)
                position.lsn, position.chain = record.lsn, record.chain
            self._save_position(position)

    def _apply_change(self, record):
        kind = record.change.WhichOneof("kind")
        if kind in ("term_start", "members"):
            return  # the cluster's own affairs; the position moves on
        if kind != "batch":
            raise ValueError(f"record {record.lsn} is of a kind that this program does not know: update it")
        for number, operation in enumerate(record.change.batch.operations):  # a later one wins over an earlier one
            self._apply_operation(record.lsn, number, operation)

    def _apply_operation(self, lsn, number, operation):
        kind = operation.WhichOneof("kind")
        if kind == "put":
            put = operation.put
            self._db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
                             (put.key, put.value, min(put.expire_at_ms, TIME_MAX_MS), lsn))
        elif kind == "delete":  # by a writer, or by the primary for a key that has expired
            self._db.execute("DELETE FROM entries WHERE key = ?", (operation.delete.key,))
        elif kind == "delete_range":  # an empty begin is below every key; an empty end means to the last key
            begin, end = operation.delete_range.begin, operation.delete_range.end
            self._db.execute("DELETE FROM entries WHERE key >= ? AND (? = x'' OR key < ?)", (begin, end, end))
        elif kind == "message":
            self._db.execute("INSERT INTO messages VALUES (?, ?, ?, ?)",
                             (lsn, number, operation.message.topic, operation.message.payload))
        else:
            raise ValueError(f"record {lsn} has an operation that this program does not know: update it")

    def _save_position(self, position):
        self._db.execute("INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?)",
                         (position.cluster_id, position.lsn, f"{position.chain:016x}"))

    @contextlib.contextmanager
    def _transaction(self):
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:  # KeyboardInterrupt too
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
