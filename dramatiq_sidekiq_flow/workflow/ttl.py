"""Extension of the lifetimes of a run's barriers and memory.

Each advance of a run extends them, for all remaining delays and Sidekiq's retry
horizon.  :func:`extend_ttl` is for runs that need more: a job that runs for
weeks, or a memory that is read long after the end.
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
    """Extend the lifetime of the barriers and the memory of the current actor's run.

    No lifetime becomes shorter.  A given ``ttl``, counted from now, also holds
    for the memory after the run's end.  Costs one round trip.  The gem has it as
    ``Sidekiq::Workflow.extend_ttl!``.

    Examples:

      >>> extend_ttl(timedelta(days=60))

    Parameters:
      ttl: Milliseconds, or a timedelta, from now.  By default the sum of all
        remaining delays and Sidekiq's retry horizon of 21 days, as for each step.

    Returns:
      True if there is a run; False, as in the gem, if the current job does not
      belong to a workflow, and outside of actors.  A thread that an actor starts
      has the run if it was started with ``contextvars.copy_context().run``.

    Raises:
      InvalidOptions: if ttl is less than a second.
      ConnectionClosed: if Redis cannot be reached.
    """
    seconds = None if ttl is None else _whole_seconds(ttl)
    run = find_current_run()
    if run is None or run.extend is None:
        return False
    run.extend(seconds)
    return True


def _whole_seconds(ttl: int | timedelta) -> int:
    """Convert a lifetime to seconds, rounded up.

    Raises:
      InvalidOptions: if it is less than a second, or of another type.
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
    """Extend the keys that a job's run needs, by ``seconds``, or by the default of :func:`extend_ttl` if None."""
    needs = engine.needs(payload)
    if seconds is not None:
        needs = attrs.evolve(needs, ttl=seconds)
    _extend(engine, payload, needs, outlive=seconds is not None)


def extend_dead(engine: Engine, job: Payload) -> None:
    """Extend the keys that a dead job's run needs: the job may be retried as long as ``dead`` keeps it.

    Parameters:
      job: The job, read without its callback stack.
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
