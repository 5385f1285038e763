"""Histories made by hand, each with one thing wrong, and the check that has to see it. They are edits of one good history
of two terms: w1 writes a1, a2 and a3, n1 dies and takes a local write of its own with it, n2 goes on with b1."""

import copy


def position(term, lsn):
    return {"term": term, "term_id": f"id{term}", "lsn": lsn}


def write(number, value, outcome="ok", lsn=None, term=1, replicas=1, at=None, node="n1", key="k"):
    at = float(number) if at is None else at
    invoke = {"event": "op", "type": "invoke", "id": number, "process": "w1", "op": "write", "node": node, "key": key,
              "value": value, "request": ["w1", number], "replicas": replicas, "at": at}
    end = {"event": "op", "type": outcome, "id": number, "node": node, "at": at + 0.1, "reached": True}
    if outcome == "ok":
        end["position"] = position(term, lsn)
    return [invoke, end]


def read(number, value, lsn, term=1, modified=None, bookmark=None, at=None, node="n2"):
    at = float(number) if at is None else at
    return [{"event": "op", "type": "invoke", "id": number, "process": "w1", "op": "read", "node": node, "key": "k",
             "bookmark": bookmark, "at": at},
            {"event": "op", "type": "ok", "id": number, "node": node, "value": value, "modified_lsn": modified,
             "position": position(term, lsn), "at": at + 0.1}]


def record(lsn, term, value=None, request=None):
    puts = [["k", value]] if value else []
    return {"lsn": lsn, "term": term, "chain": f"{term}-{lsn}", "puts": puts, "request": ["w1", request] if request else None}


def slot(name, confirmed_lsn, generation="g1", **fields):
    return {"name": name, "kind": "replica", "origin": "", "generation": generation, "state": "active",
            "confirmed_lsn": confirmed_lsn, **fields}


def status(node, at, term, durable_lsn, slots=(), first_lsn=1):
    return {"event": "status", "node": node, "at": at, "term": term, "first_lsn": first_lsn, "durable_lsn": durable_lsn,
            "slots": list(slots)}


LOG = [record(1, 1), record(2, 1, "a1", 1), record(3, 1, "a2", 2), record(4, 1, "a3", 3), record(5, 2),
       record(6, 2, "b1", 7)]
LOST = record(5, 1, "gone", 4)  # a local write of n1 that nobody else had


def session(number, from_lsn, records, ack, slot_name="c1"):
    key = {"process": "c1", "session": number}
    return [{"event": "stream", **key, "slot": slot_name, "node": "n1", "from_lsn": from_lsn, "at": 0.0},
            *({"event": "streamed", **key, **copy.deepcopy(each), "at": 0.0} for each in records),
            {"event": "ack", **key, "lsn": ack, "at": 0.0}]


def base():
    events = [{"event": "run", "liveness_seconds": 5.0, "resent_bytes_max": 1000}]
    events += write(1, "a1", lsn=2) + write(2, "a2", lsn=3) + write(3, "a3", lsn=4)
    events += write(4, "gone", lsn=5, replicas=0) + write(5, "refused", outcome="fail")
    events += read(6, "a2", 3, modified=3, bookmark=position(1, 3), at=2.5)
    events += session(1, 1, LOG[:3], 3) + session(2, 4, LOG[3:4], 4)
    events += [status("n1", 4.2, 1, 5, [slot("n2", 4), slot("n3", 4)]), status("n2", 4.3, 1, 4), status("n3", 4.4, 1, 4),
               {"event": "node", "node": "n1", "what": "kill", "at": 5.5},
               {"event": "promotion", "start": 5.6, "at": 6.0, "ok": True, "node": "n2", "forced": False, **position(2, 5)},
               {"event": "quarantined", "node": "n1", **copy.deepcopy(LOST)},
               {"event": "heal", "at": 6.5}]
    events += write(7, "b1", lsn=6, term=2, node="n2", at=7.0)
    events += read(8, "b1", 6, term=2, modified=6, bookmark=position(2, 6), at=8.0, node="n3")
    events += [status("n2", 8.2, 2, 6, [slot("n1", 6, "g2"), slot("n3", 6, "g2")]), status("n1", 8.3, 2, 6),
               status("n3", 8.4, 2, 6), {"event": "converged", "at": 9.0}]
    for node in ("n1", "n2", "n3"):
        events += [{"event": "log", "node": node, **copy.deepcopy(each)} for each in LOG]
        events += [{"event": "final", "node": node, "first_lsn": 1, "durable_lsn": 6},
                   {"event": "state", "node": node, "term": 2, "lsn": 6, "digest": "d", "entries": {"k": ["b1", 6]}}]
    events += [{"event": "justify", "decision": "rewind", "count": 1, "why": "n1 came back"},
               {"event": "resyncs", "node": "n2", "decisions": {"rewind/diverged": 1, "partial/resumed": 1},
                "resent_bytes": 100}]
    return events


# --- Edits ---

def find(events, **fields):
    return [each for each in events if all(each.get(name) == value for name, value in fields.items())]


def one(events, **fields):
    found = find(events, **fields)
    assert len(found) == 1, (fields, found)
    return found[0]


def drop(events, **fields):
    found = find(events, **fields)
    assert found, fields
    for each in found:
        events.remove(each)


def everywhere(events, lsn, **fields):
    """Changes a record in every log."""
    for each in find(events, event="log", lsn=lsn):
        each.update(fields)


def states(events, value, lsn):
    for each in find(events, event="state"):
        each["entries"] = {"k": [value, lsn]}


def without_replicated_write(events):
    everywhere(events, 4, puts=[], request=None)
    for each in find(events, event="streamed", lsn=4):
        each.update(puts=[], request=None)


def local_write_is_not_reported(events):
    drop(events, event="quarantined")


def replicated_write_is_discarded(events):
    one(events, type="invoke", id=4)["replicas"] = 1


def refused_write_is_there(events):
    events += write(9, "late", outcome="fail", at=8.6)
    everywhere(events, 6, puts=[["k", "b1"], ["x", "late"]])
    for each in find(events, event="state"):
        each["entries"]["x"] = ["late", 6]


def value_of_nobody_is_there(events):
    everywhere(events, 1, puts=[["x", "nobodys"]])
    for each in find(events, event="state"):
        each["entries"]["x"] = ["nobodys", 1]


def read_of_nobodys_value(events):
    one(events, type="ok", id=6)["value"] = "nobodys"


def one_log_has_another_chain(events):
    one(events, event="log", node="n3", lsn=3)["chain"] = "other"


def one_log_has_a_hole(events):
    drop(events, event="log", node="n3", lsn=3)


def acknowledged_at_another_place(events):
    one(events, type="ok", id=1)["position"] = position(1, 3)


def log_is_shorter_than_the_node_says(events):
    one(events, event="final", node="n3")["durable_lsn"] = 7


def later_write_comes_first(events):
    one(events, type="invoke", id=1)["at"] = 3.5
    one(events, type="ok", id=1)["at"] = 3.6


def later_term_is_acknowledged_first(events):
    one(events, type="invoke", id=7)["at"], one(events, type="ok", id=7)["at"] = 0.1, 0.2


def value_is_there_twice(events):
    everywhere(events, 6, puts=[["k", "a2"], ["k", "b1"]])


def request_has_two_answers(events):
    again = write(9, "a1", lsn=3, at=8.7)
    again[0]["request"] = ["w1", 1]
    events += again


def stream_skips_a_record(events):
    drop(events, event="streamed", lsn=2)


def stream_swaps_records(events):
    first, second = one(events, event="streamed", lsn=2), one(events, event="streamed", lsn=3)
    first["lsn"], second["lsn"] = 3, 2


def stream_resumes_too_far(events):
    one(events, event="stream", session=2)["from_lsn"] = 6
    drop(events, event="streamed", session=2)
    drop(events, event="ack", session=2)


def stream_acknowledges_what_it_has_not(events):
    one(events, event="ack", session=1)["lsn"] = 9


def stream_tears_a_record(events):
    one(events, event="streamed", lsn=3)["puts"] = []


def state_lacks_a_change(events):
    one(events, event="state", node="n3")["entries"] = {"k": ["a3", 4]}


def state_differs_at_one_position(events):
    one(events, event="state", node="n3")["digest"] = "other"


def state_is_of_another_line(events):
    one(events, event="state", node="n3").update(term=1)


def read_of_a_ghost(events):
    events += read(9, "gone", 6, term=2, modified=5, at=8.6)


def stream_of_a_ghost(events):
    one(events, event="stream", session=2)
    events += session(3, 5, [LOG[4], dict(LOG[5], term=1)], 4)


def stream_goes_back_to_the_old_line(events):
    events += session(3, 5, [dict(LOG[4], term=3)], 4)


def read_is_older_than_its_bookmark(events):
    one(events, type="ok", id=6).update(position=position(1, 2), value="a1", modified_lsn=2)


def read_misses_a_change(events):
    one(events, type="ok", id=8).update(value="a3", modified_lsn=4)


def read_covers_a_discarded_bookmark(events):
    one(events, type="invoke", id=8)["bookmark"] = position(1, 5)


def reads_go_back(events):
    events += read(9, "b1", 6, term=2, modified=6, bookmark=position(2, 6), at=8.5)
    events += read(10, "a3", 5, term=2, modified=4, bookmark=position(2, 6), at=8.8)


def slot_goes_back(events):
    events.append(status("n2", 8.8, 2, 6, [slot("n1", 5, "g2")]))


def slot_is_ahead_of_its_replica(events):
    one(events, event="status", node="n2", at=8.2)["slots"][1]["confirmed_lsn"] = 7


def log_of_a_slot_is_gone(events):
    events.append(status("n3", 8.9, 2, 6, [slot("c1", 2, state="inactive", kind="consumer")], first_lsn=5))


def log_of_a_copy_is_gone(events):
    for at in (8.9, 19.0):
        events.append(status("n3", at, 2, 6, [slot("c1", 2, state="inactive", kind="consumer", origin="n2")], first_lsn=5))


def full_resync_without_a_reason(events):
    one(events, event="resyncs")["decisions"]["full/wal_removed"] = 1


def rewind_without_a_reason(events):
    one(events, event="resyncs")["decisions"]["rewind/diverged"] = 2


def too_much_is_sent_again(events):
    one(events, event="resyncs")["resent_bytes"] = 5000


def node_goes_back_a_term(events):
    events.append(status("n3", 8.9, 1, 6))


def term_has_two_beginnings(events):
    one(events, type="ok", id=7)["position"]["term_id"] = "other"


def old_primary_goes_on(events):
    events += write(9, "late", lsn=7, term=1, at=8.6)


def term_of_nobody(events):
    events.append(status("n3", 8.9, 3, 6))


def promotion_that_never_was(events):
    drop(events, event="promotion")


def nothing_is_written_after_the_fault(events):
    one(events, event="heal")["at"] = 7.5


def nobody_converges(events):
    drop(events, event="converged")


def ends_twice(events):
    events.append(copy.deepcopy(one(events, type="ok", id=3)))


def answer_without_question(events):
    drop(events, type="invoke", id=6)


BAD = {
    "FORMAT": (ends_twice, answer_without_question),
    "C1": (without_replicated_write, local_write_is_not_reported, replicated_write_is_discarded),
    "C2": (refused_write_is_there, value_of_nobody_is_there, read_of_nobodys_value),
    "C3": (one_log_has_another_chain, one_log_has_a_hole, acknowledged_at_another_place, log_is_shorter_than_the_node_says),
    "C4": (later_write_comes_first, later_term_is_acknowledged_first),
    "C5": (value_is_there_twice, request_has_two_answers),
    "C6": (stream_skips_a_record, stream_swaps_records, stream_resumes_too_far, stream_acknowledges_what_it_has_not,
           stream_tears_a_record),
    "C7": (state_lacks_a_change, state_differs_at_one_position, state_is_of_another_line),
    "C8": (read_of_a_ghost, stream_of_a_ghost, stream_goes_back_to_the_old_line),
    "C9": (read_is_older_than_its_bookmark, read_misses_a_change, read_covers_a_discarded_bookmark, reads_go_back),
    "C10": (slot_goes_back, slot_is_ahead_of_its_replica, log_of_a_slot_is_gone, log_of_a_copy_is_gone),
    "C11": (full_resync_without_a_reason, rewind_without_a_reason, too_much_is_sent_again),
    "C12": (node_goes_back_a_term, term_has_two_beginnings, old_primary_goes_on, term_of_nobody, promotion_that_never_was),
    "C13": (nothing_is_written_after_the_fault, nobody_converges),
}


def bad_histories():
    """(check, name, events)"""
    for check, edits in BAD.items():
        for edit in edits:
            events = base()
            edit(events)
            yield check, edit.__name__, events
