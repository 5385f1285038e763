#!/usr/bin/python3
"""Writes, reads, and follows the change stream of a running cluster.

  ./generate_stubs.py stubs
  ./example.py --stubs stubs --endpoint 127.0.0.1:7700 demo            writes and reads a few keys
  ./example.py --stubs stubs --endpoint 127.0.0.1:7701 follow          prints changes, acks each; Ctrl-C ends it
  ./example.py --stubs stubs --endpoint 127.0.0.1:7701 follow --limit 5

Stop `follow` and start it again: it goes on behind the last record that it acked. The first time it begins with what
comes from then on; `--after-lsn 0` begins with the first record of the log instead.
"""

import argparse
import sys

from interrupt import Interrupt


def demo(client):
    lsn = client.write(towline_client.put(b"example/colour", b"green"), towline_client.put(b"example/size", b"42"))
    print(f"wrote two keys as one record, LSN {lsn}")
    print(f"example/colour = {client.get(b'example/colour').decode()}")
    client.write(towline_client.delete(b"example/size"))
    client.write(towline_client.put(b"example/token", b"short-lived", ttl_ms=60_000))
    client.write(towline_client.message(b"example/events", b"hello, consumers"))
    # A retry of this write, after a lost answer for instance, is recognised by its id.
    first = client.write(towline_client.put(b"example/once", b"1"), client_id="example", sequence=lsn)
    again = client.write(towline_client.put(b"example/once", b"1"), client_id="example", sequence=lsn)
    print(f"written once: LSN {first} and again LSN {again}")
    for entry in client.scan(b"example/"):
        print(f"  {entry.key.decode()} = {entry.value.decode()} (LSN {entry.modified_lsn})")


def follow(client, slot, after_lsn, limit):
    interrupt = Interrupt()
    count = 0
    with client.follow(slot, after_lsn) as follower:
        print(f"{follower.started.reason}: from LSN {follower.started.from_lsn}", flush=True)
        for records in follower.batches():  # an empty one comes a few times a second
            for record in records:
                print(f"{record.lsn} {describe(record.change)}", flush=True)
                follower.ack(record.lsn)
                count += 1
                if count == limit:
                    return
            interrupt.check()


def describe(change):
    kind = change.WhichOneof("kind")
    if kind != "batch":
        return kind
    return ", ".join(describe_operation(operation) for operation in change.batch.operations)


def describe_operation(operation):
    kind = operation.WhichOneof("kind")
    if kind == "put":
        return f"put {operation.put.key!r} ({len(operation.put.value)} bytes)"
    if kind == "delete":
        return f"delete {operation.delete.key!r}"
    if kind == "delete_range":
        return f"delete_range {operation.delete_range.begin!r} .. {operation.delete_range.end!r}"
    return f"message {operation.message.topic!r} {operation.message.payload!r}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stubs", required=True, help="directory of the generated stubs")
    parser.add_argument("--endpoint", default="127.0.0.1:7700")
    parser.add_argument("--slot", default="example")
    parser.add_argument("--after-lsn", type=int, help="start behind this record instead of where the slot stands")
    parser.add_argument("--limit", type=int, default=0, help="end after so many records; 0 = go on")
    parser.add_argument("verb", choices=["demo", "follow"])
    arguments = parser.parse_args()

    sys.path.insert(0, arguments.stubs)
    import towline_client  # it needs the stubs

    client = towline_client.Client(arguments.endpoint)
    try:
        if arguments.verb == "demo":
            demo(client)
        else:
            follow(client, arguments.slot, arguments.after_lsn, arguments.limit)
    except towline_client.TowlineError as error:
        sys.exit(f"refused: {error}")
    except KeyboardInterrupt:
        print("stopped")
    finally:
        client.close()
