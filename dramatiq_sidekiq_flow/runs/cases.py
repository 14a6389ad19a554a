"""Text of each case of an open step: where it is, why it waits or cannot move, and the cure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime

import attrs

from ..wire.near_names import hint
from ..wire.wait_for import PREFIX as WAIT_PREFIX
from .consumers import Consumer
from .finding import Case, Cause
from .patient import Patient

#: Names that are shown of a list, at most.
SHOWN = 5


def several(names: Sequence[str]) -> str:
    """Write names, the first of them if there are many."""
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


# -- in a queue ------------------------------------------------------------------


def queued(where: str, since: datetime | None, names: Sequence[str]) -> Case:
    why = f"Its turn has not come: {several(names)} will take it, after the jobs in front of it."
    return Case("queued", "moves", where, why, since=since)


def in_fanout(where: str) -> Case:
    return Case("queued", "moves", where, "A Python process pushes the rest at its next beat.")


def in_orphan_fanout(where: str) -> Case:
    why = "The process that pushed it has ended, and no other Python process runs that would go on."
    return Case("no_consumer", "blocked", where, why, ("Start a Python worker.",))


def queue_paused(queue: str) -> Case:
    cure = f"Unpause it: broker.unpause_queue({queue!r}), or in Sidekiq's Web UI."
    return Case("queue_paused", "blocked", "", f"Queue {queue!r} is paused.", (cure,))


def no_worker(start: str) -> Case:
    return Case("no_consumer", "blocked", "", "No worker process is alive.", (start,))


def no_consumer(patient: Patient, start: str, served: Sequence[str]) -> Case:
    queue = patient.step.queue
    why = f"No live process consumes queue {queue!r}.{hint(queue, served)} Consumed: {several(served)}."
    return Case("no_consumer", "blocked", "", why, (start, patient.wrong_name))


def start_of(patient: Patient) -> str:
    """How to start a worker that consumes the queue of a step."""
    command = "Ruby's Sidekiq with -q" if patient.is_ruby else "dramatiq with -Q"
    return f"Start a worker that consumes it: {command} {patient.step.queue}."


def unknown_actor(patient: Patient, where: str, known: set[str]) -> Case:
    name, queue = patient.step.name, patient.step.queue
    why = f"No Python process that consumes queue {queue!r} has an actor {name!r}.{hint(name, known - {name})}"
    deploy = f"Import the actor's module in a worker of queue {queue!r}; Python takes the job then."
    return Case("unknown_actor", "blocked", where, why, (deploy, patient.wrong_name))


def unknown_class(patient: Patient, where: str, known: set[str]) -> Case:
    name = patient.step.name
    why = f"Ruby has no class {name}.{hint(name, known - {name})}"
    cures = ("Deploy the class to the Ruby workers.", patient.wrong_name)
    return Case("unknown_class", "blocked", where, why, cures)


# -- in a set --------------------------------------------------------------------


def waits(cause: Cause, where: str, why: str, due: datetime | None) -> Case:
    return Case(cause, "waits", where, why, due=due)


def signal(patient: Patient) -> Case:
    """A WaitFor whose signal has not come."""
    name = patient.step.name.removeprefix(WAIT_PREFIX)
    cures = (f"sidekiq-flow runs signal {patient.run_id} {shlex.quote(name)}",)
    return Case("signal", "waits", "in schedule", f"It waits for the signal {name!r}.", cures, due=patient.step.due_at)


def end(patient: Patient, case: Case) -> Case:
    """The job that ends a run."""
    why = (
        f"The steps are done; the end of the run is recorded when a Python worker serves queue {patient.step.queue!r}."
    )
    return attrs.evolve(case, why=f"{why} {case.why}")


def waits_without_consumer(before: Case, absent: Case) -> Case:
    """A step that waits in a set, and whose queue has no consumer: a worker may still be started."""
    why = f"{before.why} By then: {absent.why}"
    return Case(before.cause, "waits", before.where, why, (*before.cures, *absent.cures), due=before.due)


def overdue(before: Case) -> Case:
    why = f"{before.why} It is due, and no worker process is alive that would move it to its queue."
    return Case("no_consumer", "blocked", before.where, why, ("Start a worker.",), due=before.due)


def why_retry(patient: Patient) -> str:
    times = {1: "once"}.get(patient.step.attempts, f"{patient.step.attempts} times")
    return f"It failed {times}, and runs again when it is due. Last error: {patient.error}"


def dead(patient: Patient) -> Case:
    cures = (
        f"Mend the cause, and let it run again: {patient.fix('rerun')}, or Retry in Sidekiq's Web UI "
        f"(Dead, jid {patient.step.jid}).",
        f"Or go on without it: {patient.fix('release')}",
    )
    return Case("dead", "blocked", "in dead", f"It failed for good: {patient.error}", cures, patient.step.ended_at)


def job_gone(patient: Patient) -> Case:
    why = f"It failed for good: {patient.error}. Its job was deleted from dead since, or fell out of it."
    return Case("job_gone", "blocked", "nowhere", why, patient.start_again[:1], patient.step.ended_at)


def barrier_gone(patient: Patient) -> Case:
    """A step that is done, and died because a barrier was gone."""
    why = f"The step is done, but the barrier before the next one is gone: it expired, or was deleted.{_ids(patient)}"
    cure = f"Start what remains, without running it again: {patient.fix('release')}"
    return Case("barrier_gone", "blocked", "in dead", why, (cure,), patient.step.ended_at)


def barrier_gone_ahead(patient: Patient, where: str, since: datetime | None) -> Case:
    """A step that has still to run, and cannot be advanced then."""
    why = f"When it is done, the run cannot go on: a barrier is gone; it expired, or was deleted.{_ids(patient)}"
    cure = "Let it run: it goes to dead, and the doctor can release it there."
    return Case("barrier_gone", "blocked", where, why, (cure,), since)


def _ids(patient: Patient) -> str:
    return f" ({several(sorted(patient.barriers_gone))})" if patient.barriers_gone else ""


# -- at a worker -----------------------------------------------------------------


def runs(where: str, since: datetime | None) -> Case:
    return Case("runs", "moves", where, "It runs.", since=since)


def fetched(where: str) -> Case:
    return Case("runs", "moves", where, "Its worker has fetched it, and will run it.")


def suspect(worker: str) -> Case:
    why = (
        f"A worker ({worker}) died twice while this job was in flight. It is tried alone, by the first process of its "
        "queue that has no other suspect; after a third death it goes to dead."
    )
    return Case("suspect", "waits", f"set aside by {worker}", why)


def recovered_soon(where: str, worker: str, silence: float, left: float) -> Case:
    when = f"in about {left:.0f} s" if left > 0 else "with its next beat, within 10 s"
    why = f"{_silent(worker, silence)} Another one puts the job back into its queue {when}."
    return Case("dead_worker", "waits", where, why)


def unrecovered(where: str, worker: str, silence: float) -> Case:
    why = f"{_silent(worker, silence)} No other process runs that would recover the job."
    cure = "Start a Python worker: it puts the job back into its queue."
    return Case("dead_worker", "blocked", where, why, (cure,))


def _silent(worker: str, silence: float) -> str:
    return f"Its worker {worker} has not beaten for {silence:.0f} s: it was killed, or hangs."


def silent_ruby(patient: Patient, consumer: Consumer, silence: float) -> Case:
    why = (
        f"Ruby process {consumer.name} has not beaten for {silence:.0f} s; it beats each 10 s. If it was killed, "
        "the job is lost: Sidekiq without super_fetch keeps no copy."
    )
    where, since = f"at {consumer.name}", patient.step.started_at
    return Case("silent_ruby", "blocked", where, why, patient.start_again, since)


# -- nowhere ---------------------------------------------------------------------


def unseen_in_ruby(names: Sequence[str]) -> Case:
    why = (
        f"A Ruby process without the companion has begun it since its last beat ({several(names)}), or was killed "
        "with it. If it is still so after 15 s, it is lost."
    )
    return Case("unseen_in_ruby", "moves", "not found", why, ("Look again in 15 s; the doctor does so.",))


def lost_in_ruby(patient: Patient) -> Case:
    why = (
        "A Ruby process without the companion was killed while it ran the step, or after it, before it pushed the "
        "next one: its job is nowhere, and nothing of the run comes after it."
    )
    cures = (*patient.start_again, "Use the companion in Ruby: its steps are not lost (docs/companion.md).")
    return Case("lost_in_ruby", "blocked", "nowhere", why, cures)


def lost(patient: Patient) -> Case:
    why = "Its job should exist, and is nowhere: it was deleted by hand, or Redis lost it (a failover, a restart)."
    return Case("lost", "blocked", "nowhere", why, patient.start_again)


def elsewhere() -> Case:
    return Case("elsewhere", "moves", "on another broker", "Steps on another broker are not searched for.")


def parked(patient: Patient) -> Case:
    return Case("parked", "waits", "parked", "Its run is paused.", (f"sidekiq-flow runs resume {patient.run_id}",))
