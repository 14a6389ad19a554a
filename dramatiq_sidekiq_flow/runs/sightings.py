"""Sightings: jobs of a run that were found somewhere, as far as they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import msgspec

from ..errors import cut
from ..store import keys
from ..store.job_search import FoundJob, Work
from ..wire import payload_fields
from ..wire.run_end import NAME as END
from ..wire.run_end import is_end
from ..wire.run_tree import name_of
from ..wire.tree_schema import MAX_NAME
from ..wire.wait_for import UNTIL_KEY, is_wait
from .step_codes import DEAD, PARKED, QUEUED, RETRY, RUNNING, SCHEDULED, SIGNAL

#: Characters of an error that are kept.
MOST_OF_ERROR = 1000


class _Fields(msgspec.Struct):
    """The keys of a payload that are read; other programs may write any value."""

    job_class: Any = msgspec.field(name="class", default=None)
    wrapped: Any = None
    jid: Any = None
    queue: Any = None
    workflow_run_id: Any = None
    sideline_run_id: Any = None
    swf_step: Any = None
    waits_until: Any = msgspec.field(name=UNTIL_KEY, default=None)
    swf_callback: Any = None
    retry_count: Any = None
    enqueued_at: Any = None
    error_class: Any = None
    error_message: Any = None


class _Entry(msgspec.Struct):
    """The keys of an entry of a process's work that are read."""

    payload: Any = None
    run_at: Any = None


_payloads = msgspec.json.Decoder(_Fields)
_entries = msgspec.json.Decoder(_Entry)


@attrs.frozen
class Sighting:
    """A job that was found.

    Attributes:
      number: Of its step; None if the payload does not say it.
      code: See ``step_codes``.
      started, ended, due: Epoch seconds; None if it is not known.
      worker: ``HOST:PID:NONCE``; "" if no process has it.
      error: Of its last failure; None without.
      kind: Of its place (``job_search.Place``); "" if only the work of a process shows it.
      queued_at: When it was pushed to its queue, in epoch seconds; None if it is not known.
      member: The worker and queue that have it in flight; "" in other places.
      is_suspect: True if it waits in a dead worker's hash for its trial.
    """

    number: int | None
    code: int
    name: str
    queue: str
    jid: str
    attempts: int
    started: float | None = None
    ended: float | None = None
    due: float | None = None
    worker: str = ""
    error: str | None = None
    kind: str = ""
    queued_at: float | None = None
    member: str = ""
    is_suspect: bool = False

    @property
    def is_end(self) -> bool:
        """True if it is not a step, but ends a run (``wire.run_end``)."""
        return is_end(self.number)


#: The code of a job by its place.
_CODES = {
    "flight": RUNNING,
    "queue": QUEUED,
    "arrived": QUEUED,
    "fanout": QUEUED,
    "schedule": SCHEDULED,
    "retry": RETRY,
    "dead": DEAD,
    "parked": PARKED,
}


class Sightings:
    """The sightings of one run: the last one of each job."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._by_jid: dict[str, Sighting] = {}
        #: Jid -> the job, where it was found last.
        self.jobs: dict[str, FoundJob] = {}

    def __iter__(self) -> Iterator[Sighting]:
        # A step may have two jobs, if one was pushed by hand: the one that goes on first is shown.
        return iter(sorted(self._by_jid.values(), key=lambda seen: seen.code, reverse=True))

    def numbers(self) -> set[int]:
        """The numbers of the steps whose jobs were found."""
        return {seen.number for seen in self._by_jid.values() if seen.number is not None}

    def add_work(self, work: Iterable[Work]) -> None:
        """Add the jobs of this run that threads work on."""
        for each in work:
            entry = _decoded(_entries, each.entry)
            payload = entry.payload if entry is not None else None
            # Sidekiq writes the payload as text; it was an object before 7.
            fields = _decoded(_payloads, payload.encode("utf-8", "surrogateescape")) if type(payload) is str else None
            if entry is not None and fields is not None and self._is_ours(fields):
                self._add(_running(fields, each.identity, payload_fields.seconds(_whole(entry.run_at))))

    def add_found(self, found: Iterable[FoundJob]) -> None:
        """Add those of the jobs found that belong to this run."""
        for each in found:
            fields = _decoded(_payloads, each.payload)
            if fields is not None and self._is_ours(fields):
                sighting = _in_place(fields, each)
                self._add(sighting)
                self.jobs[sighting.jid] = each

    def _is_ours(self, fields: _Fields) -> bool:
        is_step = fields.swf_callback is None
        return is_step and self.run_id in (fields.workflow_run_id, fields.sideline_run_id)

    def _add(self, sighting: Sighting) -> None:
        before = self._by_jid.get(sighting.jid)
        if before is not None and before.code == sighting.code == RUNNING and sighting.started is None:
            # In flight: the process's work says since when.
            sighting = attrs.evolve(sighting, started=before.started)
        self._by_jid[sighting.jid] = sighting


def _running(fields: _Fields, identity: str, started: float | None) -> Sighting:
    return _sighting(fields, RUNNING, worker=identity, started=started)


def _in_place(fields: _Fields, found: FoundJob) -> Sighting:
    place = found.place
    flies = place.kind == "flight"
    return attrs.evolve(
        _with_code(fields, found),
        kind=place.kind,
        queued_at=payload_fields.seconds(fields.enqueued_at),
        member=place.name if flies else "",
        is_suspect=flies and found.receipt.endswith(keys.SUSPECT),
    )


def _waits_for_signal(fields: _Fields) -> bool:
    return bool(fields.waits_until) and is_wait(fields.wrapped)


def _with_code(fields: _Fields, found: FoundJob) -> Sighting:
    kind = found.place.kind
    code = SIGNAL if kind == "schedule" and _waits_for_signal(fields) else _CODES[kind]
    if kind == "flight":
        _, _, state = keys.parse_receipt(found.receipt)
        if state in (keys.NOT_BEGUN, keys.SUSPECT):
            # Fetched ahead, or due for a trial: it waits.
            code = QUEUED
        return _sighting(fields, code, worker=keys.identity_of(found.place.name))
    if kind == "dead":
        return _sighting(fields, code, ended=found.score)
    if code == QUEUED:
        return _sighting(fields, SCHEDULED if found.score else QUEUED, due=found.score or None)
    return _sighting(fields, code, due=found.score or None)


def _sighting(
    fields: _Fields,
    code: int,
    *,
    worker: str = "",
    started: float | None = None,
    ended: float | None = None,
    due: float | None = None,
) -> Sighting:
    number, queue, jid = fields.swf_step, fields.queue, fields.jid
    return Sighting(
        number=number if type(number) is int else None,
        code=code,
        name=_name(fields),
        queue=queue if type(queue) is str else "",
        jid=jid if type(jid) is str else "",
        attempts=_failures(fields.retry_count) + (code == RUNNING),
        started=started,
        ended=ended,
        due=due,
        worker=worker,
        error=error_text(fields.error_class, fields.error_message) if code in (DEAD, RETRY) else None,
    )


def _name(fields: _Fields) -> str:
    name, wrapped = fields.job_class, fields.wrapped
    if is_end(fields.swf_step):
        return END
    if type(name) is not str:
        return ""
    if type(wrapped) is str:
        name = name_of({"class": name, "wrapped": wrapped})
    return cut(name, MAX_NAME)


def _failures(retry_count: Any) -> int:
    """Number of failed attempts of a job."""
    if retry_count is None:
        return 0
    count = payload_fields.retry_count({"retry_count": retry_count})
    return 0 if count is None else count + 1


def error_text(error_class: Any, message: Any) -> str | None:
    """``ErrorClass: message``; None if neither is known."""
    parts = [part for part in (error_class, message) if type(part) is str and part]
    return cut(": ".join(parts), MOST_OF_ERROR) if parts else None


def _decoded(decoder: msgspec.json.Decoder[Any], raw: bytes) -> Any:
    """A JSON object; None for any other bytes, which no worker could run, either."""
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        return None


def _whole(stamp: Any) -> Any:
    """``run_at`` in a form that ``payload_fields.seconds`` reads: Sidekiq 7 writes whole seconds there."""
    return float(stamp) if type(stamp) is int and stamp < 10**11 else stamp
