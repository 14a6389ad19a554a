"""Restart of a run that could not continue after a finished step: the API behind ``release``."""

from __future__ import annotations

import time
from collections.abc import Sequence

import dramatiq
from dramatiq.errors import ConnectionClosed

from ..errors import FlowError, InvalidOptions, NothingToRelease
from ..store import keys, runs, sets
from ..store.connection import LOST
from ..store.runs import LostBarrier
from ..wire import codec
from ..wire.barrier import NewBarrier
from ..wire.lifetimes import stack_ttl
from ..wire.need import is_needing_barrier
from ..wire.payload import DEFAULTS, Payload
from ..wire.payload_fields import STEP_KEY
from . import custom_barriers
from .engine import Engine
from .engine_lookup import engine_of


def restart_remaining(broker: dramatiq.Broker, jid: str, *, members: int = 1) -> str:
    """Count a failed step as done, and continue its run.

    For a job in ``dead`` (or ``retry``) with the error BarrierExpired: its
    actor has run, and a retry would only run it again.  Barriers of its
    callback stack that are gone are created again, and a job that does nothing
    replaces the step: a Python worker advances the run after it as after any
    step.

    Parameters:
      jid: The job's id.
      members: If the job is a member of a group whose barrier is gone: the
        number of members, this one included, that are not yet done or
        released.  If it is too small, the step after the group starts early.

    Returns:
      The run id.

    Raises:
      NothingToRelease: if the job is in neither set, or has no next steps.
      InvalidOptions: if members is below 1.
      ConfigurationError: if the broker has no WorkflowMiddleware.
      ConnectionClosed: if Redis cannot be reached.
    """
    if type(members) is not int or members < 1:
        raise InvalidOptions(f"members must be 1 or more, not {members!r}.", members)
    engine = engine_of(broker)
    name, raw = _find(engine, jid)
    payload = Payload.decode(raw, engine.stacks.retrieve)
    if not payload.stack or payload.run_id is None:
        raise NothingToRelease(f"The job {jid} has no next steps to start: delete it, or retry it.", jid)
    _restart(engine, name, payload, [members])
    return payload.run_id


def release_step(engine: Engine, name: str, raw: bytes, members: Sequence[int]) -> None:
    """Count a failed step as done, and continue its run, as :func:`restart_remaining`; also the last step of a run.

    Parameters:
      name: The set that holds the job, ``dead`` or ``retry``.
      raw: The job.
      members: For each group around the step, the innermost first: the number of members that are not done.

    Raises:
      NothingToRelease: if the job has left the set, or belongs to no run.
      FlowError: if the job cannot be read.
      ConnectionClosed: if Redis cannot be reached.
    """
    payload = Payload.decode(raw, engine.stacks.retrieve)
    if payload.run_id is None:
        raise NothingToRelease(f"The job {payload.jid} belongs to no run.", payload.jid)
    _restart(engine, name, payload, members)


def _restart(engine: Engine, name: str, payload: Payload, members: Sequence[int]) -> None:
    jid = payload.jid
    try:
        was_there = _replace(engine, name, payload, _barriers(payload, members))
    except LOST as e:
        raise ConnectionClosed(e) from None
    if not was_there:
        raise NothingToRelease(f"The job {jid} has just left {name!r}: it was retried, deleted or released.", jid)


def _replace(engine: Engine, name: str, payload: Payload, barriers: list[LostBarrier]) -> bool:
    """Replace a failed step by a job that does nothing; return False if the step is gone."""
    ttl = stack_ttl(payload)
    queue = queue_of(payload)
    if engine.settings.barriers is not None:
        made = tuple(NewBarrier(entry.barrier, entry.value, ttl) for entry in barriers)
        custom_barriers.create(engine.settings.barriers, made)
        barriers = []
    job = codec.encode(in_its_place(engine, payload, queue))
    operation = runs.resume(name, payload.raw, queue=queue, payload=job, barriers=barriers, ttl=ttl)
    return operation.run(engine.broker.connection)


def queue_of(payload: Payload) -> str:
    """Get the queue of a job; Sidekiq's default if the payload does not name one."""
    queue = payload.fields.get("queue")
    return queue if type(queue) is str and queue else str(DEFAULTS["queue"])


def _find(engine: Engine, jid: str) -> tuple[str, bytes]:
    """Find the set that holds a job, ``dead`` or ``retry``; return its name and the job's bytes.

    Raises:
      NothingToRelease: if neither holds it.
      ConnectionClosed: if Redis cannot be reached.
    """
    for name in (keys.DEAD, keys.RETRY):
        try:
            found = sets.members(engine.broker.connection, name)
        except LOST as e:
            raise ConnectionClosed(e) from None
        for member, _ in found:
            if _has_jid(member, jid):
                return name, member
    raise NothingToRelease(f"No job {jid} is in 'dead' or 'retry'.", jid)


def _has_jid(raw: bytes, jid: str) -> bool:
    """Return True if a payload has this jid; False if it cannot be read."""
    try:
        return jid.encode() in raw and codec.decode(raw).get("jid") == jid
    except FlowError:
        return False


def _barriers(payload: Payload, members: Sequence[int]) -> list[LostBarrier]:
    """List the barriers of a stack from the top, each with the value to create it with if it is gone."""
    found, counts = [], iter(members)
    for callback in reversed(payload.stack):
        # The first group is the innermost one.
        is_needing = is_needing_barrier(callback.barrier)
        value = next(counts, 0 if is_needing else 1) if callback.remaining is None else 1
        # A group that was met starts nothing again.
        if value or not is_needing:
            found.append(LostBarrier(callback.barrier, value))
    return found


def in_its_place(engine: Engine, payload: Payload, queue: str) -> dict[str, object]:
    """Make a job that does nothing, with the callback stack, the context and the jid of the failed step."""
    dialect, now = payload.dialect, time.time()
    return {
        **payload.inherited(engine.broker.inherit),
        "class": dialect.noop_class,
        "args": [],
        "jid": payload.jid,
        "queue": queue,
        "retry": True,
        # It has failed: the record forgets that when it is done.
        **({} if payload.step is None else {STEP_KEY: payload.step, "retry_count": 0}),
        dialect.run_id_key: payload.run_id,
        **{key: payload.fields[key] for key in (dialect.callbacks_key,) if key in payload.fields},
        "created_at": now,
        "enqueued_at": now,
    }
