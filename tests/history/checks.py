"""The checks C1 to C13 over a History. Each yields Violations; README.md says what they promise."""

import bisect
import collections

from model import Violation, position_of


def short(values, most=3):
    """The first of a list, for a message."""
    values = list(values)
    text = ", ".join(map(str, values[:most]))
    return f"{text} and {len(values) - most} more" if len(values) > most else text


# --- Where values are ---

def value_places(history):
    """value -> {(term, LSN)} over all logs, quarantined records and streams."""
    places = collections.defaultdict(set)
    for records in all_records(history):
        for record in records:
            for _, value in record.puts:
                if value is not None:
                    places[value].add(record.place)
    return places


def all_records(history):
    yield from history.logs.values()
    yield from history.quarantined.values()
    for session in history.sessions.values():
        yield session.records


# --- C1 to C5: what was written ---

def lost_writes(history):
    """C1"""
    discarded = {record.place for records in history.quarantined.values() for record in records}
    for write in history.writes:
        if not write.ok:
            continue
        if write.position is None:
            yield Violation("C1", f"{write} was acknowledged without a position")
            continue
        record = history.by_lsn.get(write.position.lsn)
        if record is not None and record.term == write.position.term and (write.key, write.value) in record.puts:
            continue
        if history.timeline and write.position.lsn < history.timeline[0].lsn:
            continue  # removed from all logs in order
        if write.replicated:
            yield Violation("C1", f"{write} was acknowledged by {write.replicas} replicas, and is lost")
        elif write.position[::2] not in discarded:
            yield Violation("C1", f"{write} is lost, and no node reports it as discarded")


def phantoms(history):
    """C2"""
    invoked = {}
    for write in history.writes:
        # A request may be asked again under another id: it failed only if no attempt may have succeeded.
        failed = write.outcome == "fail"
        invoked[write.value] = (invoked.get(write.value, (None, True))[1] and failed, write.key)
    known = {value: (write_failed, key) for value, (write_failed, key) in invoked.items()}
    for records in all_records(history):
        for record in records:
            for key, value in record.puts:
                if value is None:
                    continue
                failed, written_key = known.get(value, (True, None))
                if written_key is None:
                    yield Violation("C2", f"LSN {record.lsn} holds {value}, which nobody wrote")
                elif failed:
                    yield Violation("C2", f"LSN {record.lsn} holds {value}, whose write was refused")
                elif written_key != key:
                    yield Violation("C2", f"LSN {record.lsn} holds {value} under {key}, written under {written_key}")
    for read in history.reads:
        if read.ok and read.value is not None and known.get(read.value, (True, None)) != (False, read.key):
            yield Violation("C2", f"{read} returned what nobody wrote there, or what was refused")
    for state in history.states:
        for key, (value, _) in state["entries"].items():
            if known.get(value, (True, None)) != (False, key):
                yield Violation("C2", f"the state of {state['node']} holds {key}={value}, which nobody wrote")


def inconsistent_places(history):
    """C3"""
    seen = {}
    for records in all_records(history):
        for record in records:
            content = (record.chain, record.puts, record.request)
            if seen.setdefault(record.place, content) != content:
                yield Violation("C3", f"term {record.term} LSN {record.lsn} is {seen[record.place]} and {content}")
    begin = history.timeline[0].lsn if history.timeline else 0
    for operation in history.operations.values():
        position = operation.position if operation.ok else None
        if history.timeline and position and position.lsn >= begin and position[::2] not in seen:
            yield Violation("C3", f"{operation} has a position that no log holds")
    for node, records in history.logs.items():
        for before, after in zip(records, records[1:]):
            if after.lsn != before.lsn + 1 or after.term < before.term:
                yield Violation("C3", f"{node}: LSN {after.lsn} of term {after.term} follows LSN {before.lsn} of term "
                                f"{before.term}")
    yield from other_contents(history, seen)
    yield from other_ends(history)


def other_contents(history, seen):
    """Acknowledged positions at which something else is."""
    for write in history.writes:
        if not write.ok or write.position is None:
            continue
        content = seen.get(write.position[::2])
        if content is not None and (write.key, write.value) not in content[1]:
            yield Violation("C3", f"{write} was acknowledged at a place that holds {content[1]}")


def other_ends(history):
    """Logs that are not what their node says it holds."""
    for node, end in history.ends.items():
        log = history.logs.get(node, [])
        lsns = (log[0].lsn, log[-1].lsn) if log else (end["durable_lsn"] + 1, end["durable_lsn"])
        if lsns != (end["first_lsn"], end["durable_lsn"]):
            yield Violation("C3", f"{node} says that it holds LSN {end['first_lsn']} to {end['durable_lsn']}, its log holds "
                            f"{lsns[0]} to {lsns[1]}")
    for node, log in history.logs.items():
        for record in log:
            final = history.by_lsn.get(record.lsn)
            if final is not None and final != record:
                yield Violation("C3", f"{node} ends with {record} where the final timeline has {final}")
                break


def real_time_order(history):
    """C4"""
    writes = [write for write in history.writes if write.ok and write.position and history.is_final(write.position)]
    by_end = sorted(writes, key=lambda write: write.end)
    ends = [write.end for write in by_end]
    highest = []
    for write in by_end:
        highest.append(max(highest[-1], write.position.lsn) if highest else write.position.lsn)
    first_of_request = {}
    for write in writes:
        if write.request:
            first = first_of_request.get(write.request, write.start)
            first_of_request[write.request] = min(first, write.start)
    for write in writes:
        start = first_of_request.get(write.request, write.start)
        ended_before = bisect.bisect_left(ends, start)
        if ended_before and highest[ended_before - 1] >= write.position.lsn:
            yield Violation("C4", f"{write} began after LSN {highest[ended_before - 1]} was acknowledged")


def duplicates(history):
    """C5"""
    for name, log in [("the final timeline", history.timeline), *history.logs.items()]:
        count = collections.Counter(value for record in log for _, value in record.puts if value is not None)
        for value, times in count.items():
            if times > 1:
                yield Violation("C5", f"{value} is {times} times in {name}")
    positions = collections.defaultdict(set)
    for write in history.writes:
        if write.ok and write.request and write.position and history.is_final(write.position):
            positions[write.request].add(write.position)
    for request, answers in positions.items():
        if len(answers) > 1:
            yield Violation("C5", f"request {request} was acknowledged at {short(sorted(answers))}")


# --- C6: streams ---

def streams(history):
    """C6"""
    acked = {}  # slot -> LSN
    for session in history.sessions.values():
        name = f"{session.process} on {session.slot}"
        if session.slot in acked and session.from_lsn > acked[session.slot] + 1:
            yield Violation("C6", f"{name} resumed at LSN {session.from_lsn}, though only {acked[session.slot]} was acked")
        expected = session.from_lsn
        for record in session.records:
            if record.lsn != expected:
                yield Violation("C6", f"{name} received LSN {record.lsn} instead of {expected}")
                break
            expected += 1
            final = history.by_lsn.get(record.lsn)
            if final is not None and final.term == record.term and final != record:
                yield Violation("C6", f"{name} received {record} instead of {final}")
                break
        for lsn, arrived in session.acks:
            last = session.records[arrived - 1].lsn if arrived else session.from_lsn - 1
            if lsn > last:
                yield Violation("C6", f"{name} acknowledged LSN {lsn}, but had received {last}")
            acked[session.slot] = max(acked.get(session.slot, 0), lsn)
        acked.setdefault(session.slot, session.from_lsn - 1)


# --- C7 to C9: what was read ---

def replica_prefix(history):
    """C7"""
    by_place = {}
    for state in history.states:
        place = (state["term"], state["lsn"])
        content = (state["digest"], state["entries"])
        if by_place.setdefault(place, content) != content:
            yield Violation("C7", f"{state['node']} differs from another node at term {place[0]} LSN {place[1]}")
        record = history.by_lsn.get(state["lsn"])
        if state["lsn"] and history.timeline and (record is None or record.term != state["term"]):
            yield Violation("C7", f"the state of {state['node']} is at term {place[0]} LSN {place[1]}, which the final "
                            "timeline does not hold")
        elif history.begins_at_one():
            yield from folded(history, state)


def folded(history, state):
    expected = {key: history.value_at(key, state["lsn"])[::-1] for key in history.changes}
    expected = {key: (value, lsn) for key, (value, lsn) in expected.items() if value is not None}
    found = {key: tuple(entry) for key, entry in state["entries"].items()}
    differing = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if differing:
        key = differing[0]
        yield Violation("C7", f"{state['node']} at LSN {state['lsn']} has {key}={found.get(key)}, the log says "
                        f"{expected.get(key)}; {len(differing)} keys differ")


def ghosts(history):
    """C8"""
    places = value_places(history)
    final = {value for record in history.timeline for _, value in record.puts if value is not None}
    for read in history.reads:
        if not read.ok or read.position is None or not history.is_final(read.position) or read.value is None:
            continue
        if read.value not in final and places[read.value]:
            yield Violation("C8", f"{read} returned what is only at {short(sorted(places[read.value]))}, which is discarded")
    # A primary may die before anybody has the beginning of its term: its whole line is discarded then, by a promotion
    # that goes on from an older one. Its consumers have seen that beginning, as they see all that is durable there, and
    # quarantine holds it.
    kept = {record.term for record in history.timeline}
    promoted = {promotion["term"] for promotion in history.promotions if promotion["ok"]}
    given_up = {record.place for records in history.quarantined.values() for record in records
                if record.term in promoted - kept}
    for session in history.sessions.values():
        highest = 0
        for record in session.records:
            if record.term < highest:
                yield Violation("C8", f"{session.process} received term {record.term} behind term {highest}")
                break
            highest = max(highest, record.term)
            final_record = history.by_lsn.get(record.lsn)
            if final_record is not None and final_record.term < record.term and record.place not in given_up:
                yield Violation("C8", f"{session.process} received LSN {record.lsn} of term {record.term}, the final "
                                f"timeline has it of term {final_record.term}")
                break


def sessions(history):
    """C9"""
    newest = {}  # process -> position of its newest bookmark
    for read in history.reads:
        if not read.ok or read.position is None:
            continue
        if read.bookmark is not None:
            covered = read.position.lsn >= read.bookmark.lsn and read.position.term >= read.bookmark.term
            if not covered:
                yield Violation("C9", f"{read} was to cover {read.bookmark}")
            elif history.is_final(read.position) and history.by_lsn.get(read.bookmark.lsn) is not None \
                    and not history.is_final(read.bookmark):
                yield Violation("C9", f"{read} covers {read.bookmark}, which was discarded")
            before = newest.get(read.process)
            if before is not None and read.position.lsn < before.lsn and read.bookmark.lsn >= before.lsn:
                yield Violation("C9", f"{read} is older than {before}, which its process has seen")
            newest[read.process] = max(before or read.position, read.position, key=lambda p: (p.term, p.lsn))
        if history.begins_at_one() and history.is_final(read.position):
            lsn, value = history.value_at(read.key, read.position.lsn)
            if (value, lsn if value is not None else None) != (read.value, read.modified_lsn):
                yield Violation("C9", f"{read}, modified at {read.modified_lsn}: the log says {value} of LSN {lsn}")


# --- C10 to C13: slots, resyncs, fencing, liveness ---

COPIES_SECONDS = 5.0  # in which a node sees that the log of a copy is not there any more


def slots(history):
    """C10"""
    confirmed = {}  # (node, slot, generation) -> LSN
    without_log = {}  # (node, slot) -> since when its log is not there
    waiting = collections.defaultdict(list)  # replica -> [(sample, LSN that its slot confirms)]
    for sample in history.status:
        node = sample["node"]
        for slot in sample["slots"]:
            key = (node, slot["name"], slot["generation"])
            name = f"slot {slot['name']} on {node} at {sample['at']:g}"
            if slot["confirmed_lsn"] < confirmed.get(key, 0) and not sample.get("restarted"):
                yield Violation("C10", f"{name} went back from LSN {confirmed[key]} to {slot['confirmed_lsn']}")
            confirmed[key] = slot["confirmed_lsn"]
            whole = slot["state"] == "invalidated" or slot["confirmed_lsn"] + 1 >= sample["first_lsn"]
            since = without_log.setdefault(key[:2], sample["at"]) if not whole else without_log.pop(key[:2], None)
            if not whole and sample["at"] >= since + (COPIES_SECONDS if slot["origin"] else 0):
                yield Violation("C10", f"{name} needs LSN {slot['confirmed_lsn'] + 1}, the log begins at "
                                f"{sample['first_lsn']}")
            if slot["kind"] == "replica" and not slot["origin"] and slot["state"] in ("active", "inactive"):
                waiting[slot["name"]].append((sample["term"], slot["confirmed_lsn"], name))
        for term, lsn, name in waiting.pop(node, []):
            if term == sample["term"] and lsn > sample["durable_lsn"]:
                yield Violation("C10", f"{name} confirms LSN {lsn}, {node} later has {sample['durable_lsn']}")


def resyncs(history):
    """C11"""
    for decision in ("full", "rewind"):
        found = sum(count for key, count in history.resyncs.items() if key.split("/")[0] == decision)
        if found > history.justified[decision]:
            yield Violation("C11", f"{found} {decision} resyncs, {history.justified[decision]} of them justified")
    if history.resent_bytes_max is not None and history.resent_bytes > history.resent_bytes_max:
        yield Violation("C11", f"{history.resent_bytes} bytes were sent again, at most {history.resent_bytes_max} expected")


def fencing(history):
    """C12"""
    ids = {}
    for position in [operation.position for operation in history.operations.values()] + \
            [promotion_position(each) for each in history.promotions]:
        if position is not None and position.lsn and ids.setdefault(position.term, position.term_id) != position.term_id:
            yield Violation("C12", f"term {position.term} has two beginnings, {ids[position.term]} and {position.term_id}")
    asked = sorted(each["start"] for each in history.promotions)
    seen = {}
    for sample in history.status:
        node, term = sample["node"], sample["term"]
        if term < seen.get(node, 0):
            yield Violation("C12", f"{node} went back from term {seen[node]} to {term} at {sample['at']:g}")
        seen[node] = max(term, seen.get(node, 0))
        if term > 1 + bisect.bisect_right(asked, sample["at"]):
            yield Violation("C12", f"{node} is in term {term} at {sample['at']:g}, for which nobody had asked")
    yield from late_acknowledgements(history)
    done = sorted((promotion for promotion in history.promotions if promotion["ok"]), key=lambda each: each["at"])
    for before, after in zip(done, done[1:]):
        if after["start"] >= before["at"] and after["term"] <= before["term"]:
            yield Violation("C12", f"{after['node']} was promoted to term {after['term']} after term {before['term']}")
    terms = {promotion["term"] for promotion in done}
    for record in history.timeline:
        if record.term > 1 and record.term not in terms and not any(not each["ok"] for each in history.promotions):
            yield Violation("C12", f"LSN {record.lsn} is of term {record.term}, to which nobody was promoted")
            break


def promotion_position(promotion):
    if not promotion["ok"]:
        return None
    return position_of(promotion)


def late_acknowledgements(history):
    """Replicated writes of an older term that began after a promotion was done: a grant was not kept."""
    done = sorted((promotion["at"], promotion["term"]) for promotion in history.promotions if promotion["ok"])
    for write in history.writes:
        if not write.replicated or write.position is None:
            continue
        newer = [term for at, term in done if at < write.start and term > write.position.term]
        # The answer to a request that was asked before is of the term in which it was written.
        if newer and write.position.lsn > last_lsn_before(history, min(newer)):
            yield Violation("C12", f"{write} was acknowledged after term {min(newer)} had begun")


def last_lsn_before(history, term):
    return max((record.lsn for record in history.timeline if record.term < term), default=0)


def liveness(history):
    """C13"""
    if history.liveness_seconds is None:
        return
    ends = sorted(write.end for write in history.writes if write.ok)
    for heal in history.heals:
        for what, times in (("write was acknowledged", ends), ("convergence was seen", history.converged)):
            if not any(heal <= at <= heal + history.liveness_seconds for at in times):
                yield Violation("C13", f"no {what} within {history.liveness_seconds:g} s of {heal:g}, when all was well again")


CHECKS = (lost_writes, phantoms, inconsistent_places, real_time_order, duplicates, streams, replica_prefix, ghosts, sessions,
          slots, resyncs, fencing, liveness)


def check(history):
    """All violations, those of the format first."""
    found = list(history.violations)
    for each in CHECKS:
        found.extend(each(history))
    return found
