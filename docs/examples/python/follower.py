#!/usr/bin/python3
"""Follows a cluster: keeps a copy of its state in an SQLite database, and goes on where it was however it ended.

  ./generate_stubs.py stubs
  ./follower.py --stubs stubs --endpoint 127.0.0.1:7701 --slot copy copy.db
  sqlite3 copy.db 'SELECT key, value FROM entries'

The first run makes the slot, scans the state, and follows the log from there; Ctrl-C ends it, and the next run goes on.
A connection that is lost is made again. When the node can no longer serve the copy's position, the program ends with
exit code 4 and says what happened; with --rescan it scans the state again by itself.

Exit codes: 0 ended by Ctrl-C, SIGTERM or --until-lsn; 1 error; 4 the node refused.
"""

import argparse
import random
import sys

from interrupt import Interrupt

# Why the log behind the copy's position cannot be had: the state has to be scanned again (docs/guides/consuming.md).
LOST = {"wal_removed", "wal_damaged", "retained_bytes", "idle_timeout", "disk_pressure", "ahead", "diverged",
        "diverged_same_term", "slot_not_found"}
# Errors that waiting does not heal.
PERMANENT = ("INVALID_ARGUMENT", "UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED")
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 5.0


class Stop(Exception):
    """Ends the program with exit code 4."""


class Follow:
    """Brings the copy from wherever it is to `until_lsn`, or follows for ever (None)."""

    def __init__(self, client, copy, interrupt, slot, until_lsn=None, rescan=False):
        self._client = client
        self._copy = copy
        self._interrupt = interrupt
        self._slot = slot
        self._until_lsn = until_lsn
        self._rescan = rescan
        self._process = towline_client.new_process_instance()  # so that we may supersede our own dead session
        self._retry_seconds = RETRY_SECONDS_MIN
        self._scan_due = copy.position() is None

    def run(self):
        while True:
            try:
                if self._scan_due:
                    self._scan()
                if self._stream():
                    return
                say("the node ended the stream")
            except towline_client.Refused as refused:
                self._decide(refused)
            except towline_client.TowlineError as error:
                if error.code is not None and error.code.name in PERMANENT:
                    raise
                say(error)
            except grpc.RpcError as error:
                if error.code().name in PERMANENT:
                    raise
                say(f"{error.code().name}: {error.details()}")
            self._wait()

    def _scan(self):
        """The state of now into the copy. The slot comes first: it holds the log from before the scan, so that what
        changes during the scan can be read afterwards."""
        slot = self._client.get_slot(self._slot)
        if slot is not None and slot.kind != slot_service_pb2.SLOT_KIND_CONSUMER:
            raise Stop(f"slot {self._slot} belongs to a replica: use another name")
        if slot is not None and slot.state == slot_service_pb2.SLOT_STATE_INVALIDATED:
            self._client.drop_slot(self._slot)  # it holds nothing any more
            slot = None
        if slot is None:
            slot = self._client.create_slot(self._slot)
        count = self._copy.replace(self._pages())
        self._scan_due = False
        say(f"scanned {count} entries at LSN {self._copy.position().lsn}; slot {self._slot} holds the log behind LSN "
            f"{slot.confirmed_lsn}")

    def _pages(self):
        for page in self._client.scan_pages(pinned=True):
            self._interrupt.check()
            yield page

    def _stream(self):
        """One session. True: until_lsn is reached. Whatever else ends it, the next one goes on where the copy is."""
        position = self._copy.position()
        with self._client.follow(self._slot, position=position, process_instance=self._process) as stream:
            say(f"{stream.started.reason}: from LSN {stream.started.from_lsn} of {stream.started.node_id}")
            for records in stream.batches():
                self._retry_seconds = RETRY_SECONDS_MIN  # it works
                if self._until_lsn is not None:
                    records = [record for record in records if record.lsn <= self._until_lsn]
                if records:
                    self._copy.apply(records)
                    stream.ack(records[-1].lsn)  # not before: from here on the node may remove them
                if self._until_lsn is not None and self._copy.position().lsn >= self._until_lsn:
                    return True
                self._interrupt.check()
        return False

    def _decide(self, refused):
        """What to do about a refusal: nothing but to ask again, to scan again, or to stop."""
        say(refused)
        # Another process holds the slot: once it is gone, or known to be dead (15 s), the slot is ours.
        if refused.is_temporary or refused.reason == "slot_in_use":
            return
        if refused.reason not in LOST:
            raise Stop("another try would be refused as well")
        if not self._rescan:
            raise Stop("The copy stays as it is. Run again with --rescan to replace it by the state of now; what "
                       "changed between the two is then skipped, messages included.")
        self._scan_due = True

    def _wait(self):
        seconds = self._retry_seconds * random.uniform(0.5, 1.0)
        say(f"again in {seconds:.1f} s")
        self._retry_seconds = min(2 * self._retry_seconds, RETRY_SECONDS_MAX)
        self._interrupt.sleep(seconds)
        self._client.reconnect()


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stubs", required=True, help="directory of the generated stubs")
    parser.add_argument("--endpoint", default="127.0.0.1:7700")
    parser.add_argument("--slot", default="copy")
    parser.add_argument("--until-lsn", type=int, help="end when the copy shows exactly this record; default: never")
    parser.add_argument("--rescan", action="store_true", help="scan the state again when the position is lost")
    parser.add_argument("database", help="SQLite file; made if it is not there")
    arguments = parser.parse_args()

    sys.path.insert(0, arguments.stubs)
    import grpc
    import sqlite_copy  # these need the stubs
    import towline_client
    from towline.v1 import slot_service_pb2

    interrupt = Interrupt()
    copy = sqlite_copy.Copy(arguments.database)
    client = towline_client.Client(arguments.endpoint)
    try:
        Follow(client, copy, interrupt, arguments.slot, arguments.until_lsn, arguments.rescan).run()
    except Stop as stop:
        say(stop)
        sys.exit(4)
    except (towline_client.TowlineError, grpc.RpcError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        say("stopped")
    finally:
        client.close()
        copy.close()
