"""Search for the jobs of one run in all places where a job can be.

Where a live job is, is not recorded: a payload of the run holds the run's id as
text, and the server looks for it (``find_jobs.lua``), one small part of a place
at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal
from weakref import WeakSet

import attrs

from ..wire import codec
from . import keys, scripts
from .connection import Connection
from .fanouts import pending
from .scripts import Command

#: Elements and bytes of one call: the server needs about 2 ns for each byte.
PART_ELEMENTS = 1000
PART_BYTES = 256 * 1024

#: Elements that one call reads at once, at most.
AT_ONCE = 1000

#: Elements of a small place: it is searched together with others.
SMALL = 250

#: The same before the size of the elements is known.
FIRST_AT_ONCE = 16

#: Elements of places that are searched in one round trip.
TOGETHER = 2000

#: Bytes of a run id, as JSON, that other payloads may hold by chance: it is searched for with both quotes.
SHORT = 16

Kind = Literal["queue", "arrived", "schedule", "retry", "dead", "flight", "fanout", "parked"]


@attrs.frozen
class Place:
    """A place of jobs.

    Attributes:
      name: Queue, member of an in-flight hash, or id of a fan-out or of a paused run; "" for the others.
    """

    kind: Kind
    key: str
    name: str = ""


@attrs.frozen
class FoundJob:
    """A payload that holds the run's id.

    Attributes:
      score: Epoch seconds: when it is due, or when it died; 0.0 in other places.
      receipt: In flight; "" in other places.
    """

    place: Place
    payload: bytes
    score: float = 0.0
    receipt: str = ""


@attrs.frozen
class Work:
    """What a thread of a process works on, by the process's last beat.

    Attributes:
      entry: JSON object with ``queue``, ``payload`` and ``run_at``.
    """

    identity: str
    entry: bytes


def work(connection: Connection) -> list[Work]:
    """Read what the threads of all processes work on, of either language."""
    identities = keys.readable(_array(connection.send([("SMEMBERS", keys.PROCESSES)])[0]))
    replies = connection.send([("HVALS", keys.work(identity)) for identity in identities]) if identities else []
    return [Work(identity, entry) for identity, entries in zip(identities, replies) for entry in _array(entries)]


def places(connection: Connection) -> list[Place]:
    """List the places that may hold jobs: what is in flight first, large sets last."""
    replies = connection.send([("SMEMBERS", keys.QUEUES), ("ZRANGE", keys.WORKERS, 0, -1)])
    queues, members = (keys.readable(_array(reply)) for reply in replies)
    # A job goes from a queue into flight. A queue is searched first, so that a job is not missed on its way.
    found = [Place("queue", keys.queue(name), name) for name in queues]
    found += [Place("arrived", keys.arrived(name), name) for name in queues]
    found += [Place("flight", keys.in_flight(member), member) for member in members if keys.is_member(member)]
    found += [Place("fanout", keys.fanout(fanout), fanout) for fanout in pending(connection)]
    found += [Place("retry", keys.RETRY), Place("dead", keys.DEAD), Place("schedule", keys.SCHEDULE)]
    return found


def needle_of(run_id: str) -> bytes:
    """The text that the jobs of a run hold."""
    needle = codec.encode(run_id)
    if len(needle) > SHORT:
        # Each quote of a payload would be tried.
        needle = needle[1:]
    return needle


def search(
    connection: Connection,
    run_id: str,
    wanted: Iterable[Place],
    enough: Callable[[Sequence[FoundJob]], bool] = lambda found: False,
) -> list[FoundJob]:
    """Find the jobs of a run, each where it was found last.

    Text of other jobs may hold the id, too: the caller reads each payload.  A job
    that moves meanwhile may be found twice, or, rarely, not at all.

    Parameters:
      enough: What was found so far -> True if the search of large places can end; asked after each part.
    """
    needle = needle_of(run_id)
    all_places = list(wanted)
    small, large = by_size(connection, all_places)
    found = _search_small(connection, needle, small)
    for place in large:
        if enough(found) or _search_large(connection, needle, place, found, enough):
            return found
    if large:
        # Jobs that left a large queue before they were reached are in flight by now.
        small, _ = by_size(connection, [place for place in all_places if place not in large])
        found += _search_small(connection, needle, small)
    return found


def glance(connection: Connection, run_id: str, wanted: Iterable[Place]) -> list[FoundJob]:
    """Search where a job can have gone since a search: small places, ``retry``, and both ends of large queues."""
    needle = needle_of(run_id)
    small, large = by_size(connection, wanted)
    found = _search_small(connection, needle, small)
    for place in large:
        if place.kind == "retry":
            _search_large(connection, needle, place, found, lambda found: False)
        elif place.kind == "queue":
            found += _ends(connection, needle, place)
    return found


def _ends(connection: Connection, needle: bytes, place: Place) -> list[FoundJob]:
    """Search the jobs of a queue that were pushed last, and those that are fetched next."""
    tail = max(0, connection.call("LLEN", place.key) - PART_ELEMENTS)
    ends = [_command(needle, place, cursor, FIRST_AT_ONCE) for cursor in ("0", str(tail))]
    return [job for reply in _send(connection, ends) for job in _read(reply).jobs(place)]


def _search_small(connection: Connection, needle: bytes, batches: Iterable[Sequence[Place]]) -> list[FoundJob]:
    return [job for batch in batches for job in _search_together(connection, needle, batch)]


def _search_large(
    connection: Connection,
    needle: bytes,
    place: Place,
    found: list[FoundJob],
    enough: Callable[[Sequence[FoundJob]], bool],
) -> bool:
    """Search a large place, and add what it holds; return True if the search can end."""
    for part in _parts(connection, needle, place):
        found += part
        if part and enough(found):
            return True
    return False


def by_size(connection: Connection, wanted: Iterable[Place]) -> tuple[list[list[Place]], list[Place]]:
    """Divide places that are not empty into batches of small ones, and large ones, the smallest first."""
    known = _sized(connection, list(wanted))
    large = sorted((each for each in known if each[0] > SMALL), key=lambda each: each[0])
    return _batches([each for each in known if each[0] <= SMALL]), [place for _, place in large]


def _sized(connection: Connection, wanted: Sequence[Place]) -> list[tuple[int, Place]]:
    """Read the sizes of places; leaves out empty ones."""
    replies = connection.send([_size_command(place) for place in wanted]) if wanted else []
    sizes = map(_unless_wrong_type, replies)
    return [(size, place) for place, size in zip(wanted, sizes) if size]


def _batches(sized: Iterable[tuple[int, Place]]) -> list[list[Place]]:
    """Divide small places into those that are searched in one round trip."""
    batches: list[list[Place]] = []
    total = TOGETHER
    for size, place in sized:
        if total + size > TOGETHER:
            batches.append([])
            total = 0
        batches[-1].append(place)
        total += size
    return batches


def _size_command(place: Place) -> Command:
    if place.kind == "flight":
        return ("HLEN", place.key)
    return ("ZCARD" if place.kind in ("schedule", "retry", "dead") else "LLEN", place.key)


def first_parts(connection: Connection, needle: bytes, batch: Sequence[Place]) -> list[tuple[Place, Part]]:
    """Search the first parts of places in one round trip."""
    replies = _send(connection, [_command(needle, place, "0", FIRST_AT_ONCE) for place in batch])
    return [(place, _read(reply)) for place, reply in zip(batch, replies)]


def _search_together(connection: Connection, needle: bytes, batch: Sequence[Place]) -> Iterator[FoundJob]:
    """Search small places in one round trip, and the rest of those with large elements."""
    for place, part in first_parts(connection, needle, batch):
        yield from part.jobs(place)
        if part.cursor:
            for jobs in _parts(connection, needle, place, part):
                yield from jobs


@attrs.frozen
class Part:
    """What one call read.

    Attributes:
      cursor: Where the next part begins: an index, or the cursor of a hash; "" at the end.
      elements, size: Number of elements that were read, and of their bytes.
      found: Payload and label of each job that holds the text.
    """

    cursor: str = "0"
    elements: int = 0
    size: int = 0
    found: tuple[bytes, ...] = ()

    @property
    def at_once(self) -> int:
        """Elements to read at once in the next call, by the size of those of this one."""
        if not self.elements:
            return FIRST_AT_ONCE
        return max(1, min(AT_ONCE, PART_BYTES * self.elements // (self.size or 1)))

    def jobs(self, place: Place) -> list[FoundJob]:
        """The jobs that were found."""
        return [_job(place, payload, label) for payload, label in zip(self.found[::2], self.found[1::2])]


def _parts(connection: Connection, needle: bytes, place: Place, part: Part = Part()) -> Iterator[list[FoundJob]]:
    while part.cursor:
        part = next_part(connection, needle, place, part)
        yield part.jobs(place)


def next_part(connection: Connection, needle: bytes, place: Place, part: Part) -> Part:
    """Search the part of a place behind another one; the first one behind ``Part()``."""
    (reply,) = _send(connection, [_command(needle, place, part.cursor, part.at_once)])
    return _read(reply)


#: Connections to a server that knows no scripts which only read, or whose user may not run them.
_writing: WeakSet[Connection] = WeakSet()


def _send(connection: Connection, searches: Sequence[Command]) -> list[Any]:
    """Run searches as scripts that only read: Redis allows them keys that the user may only read, from 7.0 on."""
    if connection not in _writing:
        replies = connection.send(list(map(scripts.read_only, searches)))
        if not any(map(_is_refused, replies)):
            return replies
        _writing.add(connection)
    return connection.send(searches)


def _is_refused(reply: Any) -> bool:
    return isinstance(reply, Exception) and ("NOPERM" in str(reply) or "unknown command" in str(reply))


def _command(needle: bytes, place: Place, cursor: str, at_once: int) -> Command:
    return scripts.FIND_JOBS.command((place.key,), (needle, cursor, PART_ELEMENTS, PART_BYTES, at_once))


def _read(reply: Any) -> Part:
    if isinstance(reply, Exception):
        raise reply
    if reply[0] == b"TYPE":
        # Another program's key: it holds no jobs.
        return Part("")
    cursor, elements, size, *found = reply
    return Part(cursor.decode(), elements, size, tuple(found))


def _job(place: Place, payload: bytes, label: bytes) -> FoundJob:
    if place.kind == "flight":
        return FoundJob(place, payload, receipt=label.decode("utf-8", "replace"))
    if place.kind == "parked" and place.key == keys.parked(place.name):
        return _parked_job(place, payload)
    if place.kind in ("fanout", "parked") and payload[:1] == b"s":
        score, _, payload = payload[1:].partition(b" ")
        return FoundJob(place, payload, float(score))
    return FoundJob(place, payload, float(label or 0))


def _parked_job(place: Place, entry: bytes) -> FoundJob:
    """A job of a paused run; for a parked fan-out, the place of its jobs, and no payload."""
    name, _, payload = entry[1:].partition(b"\0")
    if entry[:1] == b"f":
        fanout = name.decode("utf-8", "replace")
        return FoundJob(Place("parked", keys.fanout(fanout), fanout), b"")
    return FoundJob(place, payload, 0.0 if entry[:1] == b"q" else float(name))


def parked_place(run_id: str) -> Place:
    """The place of the parked jobs of a run."""
    return Place("parked", keys.parked(run_id), run_id)


def parked_fanouts(found: Iterable[FoundJob]) -> list[Place]:
    """The places of the parked fan-outs among jobs that were found."""
    return [job.place for job in found if not job.payload]


def _array(reply: Any) -> list[bytes]:
    """A reply that is an array or a set; empty for a key of another type."""
    return list(_unless_wrong_type(reply) or ())


def _unless_wrong_type(reply: Any) -> Any:
    """A reply; None for a key of another type: it holds no jobs.  Raises any other error."""
    if not isinstance(reply, Exception):
        return reply
    if str(reply).startswith("WRONGTYPE"):
        return None
    raise reply
