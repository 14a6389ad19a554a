"""Advance of a run after a finished job: the only loop, for all transports.

The callback stack is walked from the top.  Each callback's barrier counts the
job.  If a barrier releases, its callback fires, and the continuation is planned
and written.  The transport does the counting and the writing.
"""

from __future__ import annotations

from ..store.outcomes import Gone, NeedsPlan, RunCancelled, StageLost
from .engine import Engine
from .finished_job import FinishedJob


def advance(job: FinishedJob, engine: Engine) -> None:
    """Count a finished job, and push the next steps.  Repeated calls are safe.

    A step of a chain always fires a callback, so its plan is sent with the first
    call.  A member of a group sends no plan; for the last one the outcome names
    the callback that fires, and the plan is sent with a second call.

    Raises:
      BarrierExpired, WrongType: if the run cannot continue; nothing is written,
        and the job stays in flight.
      ConnectionClosed: if Redis cannot be reached.
    """
    transport = engine.transport
    engine.stacks.extend(job.payload, job.ttl)
    due, plan = transport.first_due(job), None
    while True:
        if due > 0 and plan is None:
            plan = engine.plan_after(job, due)
        outcome = transport.send(job, due, plan)
        match outcome:
            case NeedsPlan(index):
                due, plan = index, None
            case StageLost():
                # Its staged list is gone: the transport stages the same plan again.
                continue
            case Gone():
                engine.logger.debug(
                    "Job %s is not in flight here: it was acknowledged before, or recovered by another process. "
                    "Nothing is written.",
                    job.payload.jid,
                )
                return
            case RunCancelled():
                return
            case _:
                if plan is not None:
                    engine.pushed(plan)
                return
