"""Jobs that do nothing, and fire barriers that were released while their run was paused."""

from __future__ import annotations

from typing import Any

from ..broker.message import new_jid
from ..wire import codec
from ..wire.payload import Payload
from .engine import Engine
from .resume import in_its_place, queue_of


def firing_jobs(engine: Engine, payload: Payload) -> dict[str, bytes]:
    """Make the jobs that fire the barriers of a job's callback stack.

    Returns:
      Barrier -> name of a queue, a NUL, and a job that does nothing, with the callback stack up to and with this
      barrier.
    """
    queue = queue_of(payload)
    job = in_its_place(engine, payload, queue)
    stack: list[Any] = []
    found: dict[str, bytes] = {}
    for callback in payload.stack:
        stack.append(callback.dump())
        stored = stack if engine.stacks.store is None else engine.stacks.store(list(stack))
        fires = {**job, "jid": new_jid(), payload.dialect.callbacks_key: stored}
        found[callback.barrier] = b"%b\0%b" % (queue.encode(), codec.encode(fires))
    return found
