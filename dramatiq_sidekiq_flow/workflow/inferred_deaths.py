"""Deaths of steps that no worker recorded, such as those in plain Ruby; the keeper finds them in ``dead``."""

from __future__ import annotations

import time

from ..errors import FlowError
from ..store import run_keeping
from ..wire.need import is_needing_barrier
from ..wire.payload import Payload
from ..wire.payload_fields import seconds
from .engine import Engine

#: The option of a step that another handler deals with when the step dies.
ON_DEATH_KEY = "swf_on_death"


def note_death(engine: Engine, job: Payload) -> None:
    """Record the death of a step that is in ``dead``, unless it is recorded.

    Parameters:
      job: The job, read without its callback stack.

    Raises:
      redis.ConnectionError, ServerUnavailable: if Redis cannot be reached.
    """
    if ON_DEATH_KEY in job.fields:
        return
    at = seconds(job.fields.get("retried_at")) or seconds(job.fields.get("failed_at")) or time.time()
    death = engine.records.of_death(job, job.fields, at, inferred=True)
    if death.key:
        run_keeping.note_death(death, job.raw, _barriers(engine, job)).run(engine.broker.connection)


def _barriers(engine: Engine, job: Payload) -> list[str]:
    """The barriers of a job from the top, if a group around it needs some of its members."""
    stored = job.fields.get(job.dialect.callbacks_key)
    try:
        stack = Payload.decode(job.raw, engine.stacks.retrieve).stack if stored else ()
    except (FlowError, LookupError, ValueError):
        # The worker that buried such a job has logged why.
        return []
    barriers = [callback.barrier for callback in reversed(stack)]
    return barriers if any(map(is_needing_barrier, barriers)) else []
