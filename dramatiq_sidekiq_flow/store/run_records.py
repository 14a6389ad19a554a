"""Records of runs: what is kept of each run that a workflow started, apart from where its jobs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ..errors import PayloadError, WrongType
from ..wire import codec
from . import keys, scripts
from .connection import Connection
from .outcomes import Done, Operation, read_outcome
from .scripts import Command
from .step_records import deaths_by_jid

#: The states that a record may have; each has an index of its runs.
STATES = ("running", "failed", "paused", "cancelled", "done")

#: End of the JSON of a death that the keeper recorded.
INFERRED = b',"inferred":true}'

#: End of the JSON of a death that the run does not wait for, since the group of the step needs other members only.
SPARED = b',"spared":true}'

#: Fields of a record, without its tree.
_FIELDS = (
    *("state", "started", "finished", "total", "template", "tags", "adopted", "reason", "skipped", "end"),
    "repeated",
)


@attrs.frozen
class RecordHead:
    """A record without its steps.

    Attributes:
      state: One of :data:`STATES`.
      started, finished: Epoch seconds; None if it is not known.
      total: Number of steps; None in a run that was first seen in its middle.
      done, failed: Numbers of steps that are marked as done, and as dead.
      reason: Of a cancellation; "" without.
      skipped: Number of steps in fallbacks that did not run so far.
      end: Queue of the job that ends the run; "" without.
      repeated: The run that repeats it; "" without.
    """

    id: str
    state: str
    started: float | None
    finished: float | None
    total: int | None
    template: str | None
    tags: tuple[str, ...]
    adopted: bool
    reason: str
    done: int
    failed: int
    skipped: int = 0
    end: str = ""
    repeated: str = ""


@attrs.frozen
class StepTimes:
    """Entry of a step that is done.

    Attributes:
      started, ended: Epoch seconds; None if it is not known.
      attempts: Number of failed attempts before.
      worker: ``HOST:PID:NONCE``.
    """

    started: float | None
    ended: float | None
    attempts: int
    worker: str


@attrs.frozen
class Record:
    """A record with the marks of its steps.

    Attributes:
      tree: The compact tree (``wire.tree_nodes``); b"" without.
      times: Step number -> entry of a step that is done, as it was written.
      bits: Bitmap by step number of the steps that are done.
      failed: Step number -> JSON of the error of a dead step.
      added: Step number -> JSON of the tree that replaced the step.
      failed_jobs: Jid -> JSON of the error of a dead step without a number.
    """

    head: RecordHead
    tree: bytes
    times: Mapping[int, bytes]
    bits: bytes
    failed: Mapping[int, bytes]
    added: Mapping[int, bytes] = attrs.field(factory=dict)
    failed_jobs: Mapping[str, bytes] = attrs.field(factory=dict)

    @property
    def marks(self) -> tuple[object, ...]:
        """What changes with each step that is marked."""
        failed = (*self.failed, *self.failed_jobs)
        return (self.head.state, len(self.times), self.bits, failed, len(self.added))


def read(connection: Connection, run_id: str) -> Record | None:
    """Read the record of a run; None if there is none.

    Raises:
      WrongType: if one of its keys holds another type.
    """
    names = keys.record_parts(run_id)
    commands: list[Command] = [("HGETALL", name) for name in names]
    commands[2] = ("GET", names[2])
    replies = connection.send(commands)
    for name, reply in zip(names, replies):
        check_type(name, reply)
    fields = _fields(replies[0])
    if not fields:
        return None
    times, failed, failed_jobs = numbered(replies[1]), numbered(replies[3]), deaths_by_jid(_fields(replies[3]))
    bits = replies[2] or b""
    done = len(times) + int.from_bytes(bits, "big").bit_count()
    head = _head(run_id, [fields.get(name.encode()) for name in _FIELDS], done, len(failed) + len(failed_jobs))
    return Record(head, fields.get(b"tree", b""), times, bits, failed, numbered(replies[4]), failed_jobs)


def unrecorded(run_id: str) -> Record:
    """Make the record of a run that has none yet: Ruby started it, and no step of Python has ended."""
    head = _head(run_id, [b"running"] + [None] * (len(_FIELDS) - 1), 0, 0)
    return Record(head, b"", {}, b"", {})


def read_heads(connection: Connection, run_ids: Sequence[str]) -> list[RecordHead | None]:
    """Read records without their steps; None for each that is gone."""
    commands: list[Command] = []
    for run_id in run_ids:
        commands.append(("HMGET", keys.record(run_id), *_FIELDS))
        commands.append(("HLEN", keys.step_times(run_id)))
        commands.append(("BITCOUNT", keys.done_steps(run_id)))
        commands.append(("HLEN", keys.failed_steps(run_id)))
    replies = connection.send(commands) if commands else []
    heads: list[RecordHead | None] = []
    for run_id, values, times, bits, failed in zip(run_ids, replies[::4], replies[1::4], replies[2::4], replies[3::4]):
        check_type(keys.record(run_id), values)
        if values[0] is None:
            heads.append(None)
            continue
        # Field 0 of the times is not a step.
        done = max(0, _count(times) - 1) + _count(bits)
        heads.append(_head(run_id, values, done, _count(failed)))
    return heads


def state_of(connection: Connection, run_id: str) -> str | None:
    """Read the recorded state of a run; None if it has no record."""
    key = keys.record(run_id)
    reply = connection.send([("HGET", key, "state")])[0]
    check_type(key, reply)
    return None if reply is None else read_text(reply)


def read_times(entry: bytes) -> StepTimes:
    """Read the entry of a step that is done."""
    started, ended, attempts, worker, *_ = [*read_text(entry).split(" ", 3), "", "", "", ""]
    return StepTimes(read_seconds(started), read_seconds(ended), int(attempts) if attempts.isdecimal() else 0, worker)


def is_inferred(failure: bytes) -> bool:
    """Return True if the keeper found a dead step, which Ruby may have run again since, and no worker recorded it."""
    return failure.endswith((INFERRED, INFERRED[:-1] + SPARED))


def is_spared(failure: bytes) -> bool:
    """Return True for a death that the run does not wait for."""
    return failure.endswith(SPARED)


def mark_dead(run_id: str, number: int, failure: bytes) -> Operation[bool]:
    """Record a step whose job is nowhere as dead (``mark_dead.lua``); return False if the run has ended.

    Parameters:
      failure: JSON object, as of ``step_records.Death``.
    """
    command = scripts.MARK_DEAD.command((keys.record(run_id),), (number, failure))
    return Operation(command, lambda reply: isinstance(read_outcome(reply), Done))


# -- replies ------------------------------------------------------------------------


def check_type(key: str, reply: Any) -> None:
    """Raise the error that a reply is.

    Raises:
      WrongType: if the key holds another type.
    """
    if not isinstance(reply, Exception):
        return
    if str(reply).startswith("WRONGTYPE"):
        raise WrongType(f"The Redis key {key!r} holds another type, so the record of a run cannot be read.", key)
    raise reply


def _head(run_id: str, values: Sequence[bytes | None], done: int, failed: int) -> RecordHead:
    state, started, finished, total, template, tags, adopted, reason, skipped, end, repeated = map(_optional, values)
    return RecordHead(
        run_id,
        state if state in STATES else "running",
        read_seconds(started),
        read_seconds(finished),
        int(total) if total.isdecimal() else None,
        template or None,
        _tags(tags),
        adopted == "1",
        reason,
        done,
        failed,
        int(skipped) if skipped.isdecimal() else 0,
        end,
        repeated,
    )


def _optional(value: bytes | None) -> str:
    """The text of a field; "" if it is missing."""
    return "" if value is None else read_text(value)


def _tags(text: str) -> tuple[str, ...]:
    try:
        value = codec.decode_value((text or "[]").encode("utf-8", "surrogateescape"))
    except PayloadError:
        return ()
    return tuple(map(str, value)) if type(value) is list else ()


def _fields(reply: Any) -> dict[bytes, bytes]:
    # A dict over RESP3, a flat list over RESP2.
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))


def numbered(reply: Any) -> dict[int, bytes]:
    """Read the fields whose names are step numbers."""
    return {int(name): value for name, value in _fields(reply).items() if name.isdigit() and int(name)}


def _count(reply: Any) -> int:
    return reply if isinstance(reply, int) else 0


def read_text(value: bytes) -> str:
    """Read a text; bytes that are not UTF-8 are kept as surrogates."""
    return value.decode("utf-8", "surrogateescape")


def read_seconds(text: str) -> float | None:
    """Read epoch seconds; None if they are missing, or not a time."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 253_402_300_799 else None
