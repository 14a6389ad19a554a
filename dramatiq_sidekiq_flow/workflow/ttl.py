"""Extends the lifetimes of a run's barriers and memory.

Each transition of a run does so by itself, for all delays ahead and Sidekiq's
retry horizon.  :func:`extend_ttl` is for runs that need more: a job that runs
for weeks, a memory that is read long after the end.
"""

from __future__ import annotations

from datetime import timedelta

import attrs
from dramatiq.errors import ConnectionClosed

from ..context import find_current_run
from ..errors import InvalidOptions
from ..store import runs
from ..store.connection import LOST
from ..store.needs import Needs
from ..wire.lifetimes import DEAD_TIMEOUT, MAX_TTL
from ..wire.payload import Payload
from .engine import Engine


def extend_ttl(ttl: int | timedelta | None = None) -> bool:
    """From inside an actor: let the barriers and the memory of its run live on.

    Nothing lives shorter than before.  A ``ttl`` that is given also holds for
    the memory after the run's end, counted from now.  It is the gem's
    ``Sidekiq::Workflow.extend_ttl!``, and one round trip.

    Examples:

      >>> extend_ttl(timedelta(days=60))

    Parameters:
      ttl: Milliseconds, or a timedelta, from now.  Unless given, all delays
        that are still ahead and Sidekiq's retry horizon of 21 days: what each
        step does by itself.

    Returns:
      Whether there is a run: False, as in the gem, if the current job belongs
      to no workflow, and outside of actors.  A thread of an actor's own has
      its run if it was started with ``contextvars.copy_context().run``.

    Raises:
      InvalidOptions: for less than a second.
      ConnectionClosed: when Redis cannot be reached.
    """
    seconds = None if ttl is None else _whole_seconds(ttl)
    run = find_current_run()
    if run is None or run.keeper is None:
        return False
    run.keeper(seconds)
    return True


def _whole_seconds(ttl: int | timedelta) -> int:
    """A lifetime in seconds, never shorter than asked for.

    Raises:
      InvalidOptions: if it is less than a second, or not a lifetime.
    """
    given: float = 0
    if isinstance(ttl, timedelta):
        given = ttl / timedelta(seconds=1)
    elif type(ttl) is int:
        given = ttl / 1000
    if given < 1:
        raise InvalidOptions(f"ttl must be 1000 milliseconds or more, or such a timedelta, not {ttl!r}.", ttl)
    return int(min(-(-given // 1), MAX_TTL))


def extend(engine: Engine, payload: Payload, seconds: int | None) -> None:
    """Extend what a job's run needs, by ``seconds`` or the rule."""
    needs = engine.needs(payload)
    if seconds is not None:
        needs = attrs.evolve(needs, ttl=seconds)
    _extend(engine, payload, needs, outlive=seconds is not None)


def extend_dead(engine: Engine, job: Payload) -> None:
    """Extend what a dead job's run needs: it may be retried for as long as ``dead`` keeps it.

    Parameters:
      job: As it was read without its callback stack.
    """
    payload = Payload.decode(job.raw, engine.stacks.retrieve)
    if payload.stack:
        _extend(engine, payload, engine.needs(payload, waits=DEAD_TIMEOUT))


def _extend(engine: Engine, payload: Payload, needs: Needs, *, outlive: bool = False) -> None:
    engine.extend_custom_barriers(payload, needs.ttl)
    memory = engine.outputs.memory_key(payload).key
    try:
        runs.extend(engine.broker.connection, needs.keys, memory, ttl=needs.ttl, outlive=outlive)
    except LOST as e:
        raise ConnectionClosed(e) from None
