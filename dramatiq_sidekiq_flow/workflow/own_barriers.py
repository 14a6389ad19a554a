"""Where a finished job advances its workflow past barriers of the application's own.

They count first; then one script takes the job out of flight, keeps its output
and pushes what follows.  A crash between the two runs the job again: the same
unit gets the same answer, and the ids of what follows are made from the
barrier's, so it is the same jobs that are pushed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dramatiq.errors import ConnectionClosed

from ..broker.message import SidekiqMessage
from ..errors import WrongType
from ..store import runs
from ..store.barriers import Barrier
from ..store.connection import LOST
from ..wire.callbacks import Callback
from ..wire.payload import RELEASED_TTL
from .plan import NewBarrier, Plan, barrier_ttl, completes_at_once, derived

if TYPE_CHECKING:
    from .completion import Completion


def advance(
    completion: Completion,
    barriers: Barrier,
    message: SidekiqMessage,
    memory: tuple[str, int],
    fields: Mapping[str, bytes],
) -> None:
    """Go on after a job that succeeded; see ``Completion.advance``."""
    payload = message.payload
    try:
        fires = count(barriers, payload.stack, payload.jid)
        ready: Plan | None = None
        released = ""
        if fires:
            callback = payload.stack[-fires]
            assert callback.remaining is not None
            released = callback.barrier
            hooks = completion.hooks(message)
            source = completion.source(
                payload.run_id, finished=payload, queue=message.queue_name, ids=derived(released), hooks=hooks
            )
            ready = completion.plan(callback.remaining, payload.stack[:-fires], source)
            if hooks is not None:
                hooks.after()
        ttl = barrier_ttl(None, payload.stack)
        extend(barriers, payload.stack, ttl)
        completion.keep_chains(payload.stack, ttl)
        if payload.stack:
            memory = (memory[0], max(memory[1], ttl))
        while True:
            writes = completion.writes(ready) if ready is not None else runs.NOTHING
            reply = completion.broker.commit.run(
                runs.release(
                    message.member,
                    message.receipt,
                    released=released,
                    ttl=RELEASED_TTL,
                    memory=memory,
                    fields=fields,
                    plan=writes,
                )
            )
            if reply[0] == b"TYPE":
                raise WrongType(f"The Redis key {reply[1].decode()!r} holds another type than is needed.", reply[1])
            if reply[0] != b"STAGE":
                completion.pour_soon(writes)
                break
    except LOST as e:
        raise ConnectionClosed(e) from None
    completion.release_chains(ready)
    if ready is not None and ready.scheduled:
        completion.broker.poller.nudge(ready.scheduled[0][0] - time.time())


def count(barriers: Barrier, stack: tuple[Callback, ...], unit: str) -> int:
    """Walk a stack from the top; the number of the callback that fires (1 = the top), 0 = none."""
    for number, callback in enumerate(reversed(stack), 1):
        if not barriers.wait(callback.barrier, unit):
            return 0
        if callback.remaining is not None and not completes_at_once(callback.remaining):
            return number
        if callback.remaining is None and not callback.propagate:
            return 0
        unit = callback.barrier
    return 0


def create(barriers: Barrier, made: tuple[NewBarrier, ...]) -> None:
    """Make the barriers of a plan, before its jobs exist."""
    for barrier in made:
        if barrier.value:
            barriers.create(barrier.id, barrier.value, barrier.ttl * 1000)


def extend(barriers: Barrier, stack: tuple[Callback, ...], ttl: int) -> None:
    """Let the barriers of a stack live on, for so many seconds."""
    for callback in stack:
        barriers.extend(callback.barrier, ttl * 1000)
