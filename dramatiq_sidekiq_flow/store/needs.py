"""Keys that a waiting job needs, and how long they must live."""

from __future__ import annotations

import attrs

from ..wire.lifetimes import MAX_TTL, stack_ttl
from ..wire.payload import Payload
from . import keys
from .chains import stored_keys
from .runs import NO_MEMORY, MemoryKey


@attrs.frozen
class Needs:
    """Redis keys and their minimum lifetime.

    Attributes:
      keys: Keys of the barriers of a callback stack, of the stored chains that
        it refers to, and of the run's memory and record.
      ttl: Seconds.
    """

    keys: tuple[str, ...] = ()
    ttl: int = 0


NO_NEEDS = Needs()


def needs(payload: Payload, memory: MemoryKey = NO_MEMORY, *, waits: float = 0.0) -> Needs:
    """List the keys that a job's run needs until the job is done.  The companion's ``needs(job)`` does the same.

    Parameters:
      memory: Memory of the run.
      waits: Seconds until the job may run: the delay of a retry, or the time
        that ``dead`` keeps it.
    """
    barriers = [key for callback in payload.stack for key in keys.barrier(callback.barrier)]
    chains = stored_keys(callback.remaining for callback in payload.stack)
    memories = (memory.key,) if memory.key else ()
    records = keys.record_parts(payload.run_id) if payload.step and payload.run_id else ()
    ttl = min(int(stack_ttl(payload) + waits), MAX_TTL)
    return Needs((*barriers, *chains, *memories, *records), max(ttl, memory.ttl))
