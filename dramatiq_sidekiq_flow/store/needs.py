"""What must stay alive for a job that waits, and for how long."""

from __future__ import annotations

import attrs

from ..wire.lifetimes import MAX_TTL, stack_ttl
from ..wire.payload import Payload
from . import keys
from .chains import stored_keys
from .runs import NO_MEMORY, MemoryKey


@attrs.frozen
class Needs:
    """Redis keys, and the seconds that they must live at least.

    Attributes:
      keys: Of the barriers of a callback stack, of the chains that it refers
        to, and of the run's memory.
    """

    keys: tuple[str, ...] = ()
    ttl: int = 0


NO_NEEDS = Needs()


def needs(payload: Payload, memory: MemoryKey = NO_MEMORY, *, waits: float = 0.0) -> Needs:
    """What a job's run needs until the job is done: as Ruby's ``needs(job)``.

    Parameters:
      memory: Of its run.
      waits: Seconds until the job may run: until a retry, or for as long as
        ``dead`` keeps it.
    """
    barriers = [key for callback in payload.stack for key in keys.barrier(callback.barrier)]
    chains = stored_keys(callback.remaining for callback in payload.stack)
    memories = (memory.key,) if memory.key else ()
    ttl = min(int(stack_ttl(payload) + waits), MAX_TTL)
    return Needs((*barriers, *chains, *memories), max(ttl, memory.ttl))
