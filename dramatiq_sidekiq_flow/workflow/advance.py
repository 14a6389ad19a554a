"""The advance of a run past a finished job: the only loop, for all transports.

The callback stack is walked from the top.  Each entry's barrier counts the
job; where a barrier releases, its callback fires, and what remains is planned
and written.  How that is counted and written is the transport's part.
"""

from __future__ import annotations

from ..store.outcomes import Gone, NeedsPlan, StageLost
from .engine import Engine
from .finished_job import FinishedJob


def advance(job: FinishedJob, engine: Engine) -> None:
    """Count a finished job, and write what follows.  Calling it again is safe.

    A step of a chain always fires, so its plan goes along at once.  A member
    of a group sends none; the last one is told which callback fires, and sends
    again with its plan.

    Raises:
      BarrierExpired, WrongType: if the run cannot go on; nothing is written,
        the job is still in flight.
      ConnectionClosed: if Redis cannot be reached.
    """
    transport = engine.transport
    engine.stacks.extend(job.payload, job.ttl)
    due, plan = transport.first_due(job), None
    while True:
        if due and plan is None:
            plan = engine.plan_after(job, due)
        outcome = transport.send(job, due, plan)
        match outcome:
            case NeedsPlan(index):
                due, plan = index, None
            case StageLost():
                # The transport stages the same plan again.
                continue
            case Gone():
                engine.logger.debug("Job %s is not in flight: sent twice, or recovered elsewhere.", job.payload.jid)
                return
            case _:
                if plan is not None:
                    engine.pushed(plan)
                return
