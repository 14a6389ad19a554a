"""Diagnosis of one open step: where it is, why it waits or cannot move, and the cure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

import attrs

from ..store import keys
from ..wire.near_names import hint
from .consumers import Consumer, Consumers
from .finding import Case, Cause
from .sightings import Sighting
from .snapshot import RunState
from .step import Step, StepState
from .step_list import utc

#: Seconds without a heartbeat after which a Python process is shown as silent: it beats each 10 seconds.
SILENCE = 25.0

#: Seconds after which a job that is due should have been moved to its queue.
OVERDUE = 60.0

#: What Ruby says of a class that it does not have.
_NO_CONSTANT = re.compile(r"NameError: uninitialized constant ([A-Z]\w*(?:::[A-Z]\w*)*)")

#: What ``unknown_actor`` says.
_NO_ACTOR = "ActorNotFound: "


@attrs.frozen
class Patient:
    """An open step, and what was found of it.

    Attributes:
      seen: Its job; None if no job was found.
      is_ruby: True if Ruby runs it.
      run_state: Of its run.
      barriers_gone: The barriers in its callback stack that do not exist.
    """

    run_id: str
    run_state: RunState
    step: Step
    seen: Sighting | None
    is_ruby: bool
    barriers_gone: Collection[str] = ()

    @property
    def pushed(self) -> datetime | None:
        """When its job was pushed to its queue."""
        return utc(self.seen.pushed) if self.seen is not None else None

    def fix(self, how: str) -> str:
        """The doctor's command for its run."""
        return f"sidekiq-flow doctor {self.run_id} --fix {how} --yes"


class Diagnosis:
    """Diagnoses steps.

    Parameters:
      consumers: The worker processes.
      is_elsewhere: True if steps may be on another broker, where they are not searched for.
    """

    def __init__(self, consumers: Consumers, is_elsewhere: bool = False) -> None:
        self.consumers = consumers
        self.is_elsewhere = is_elsewhere
        self._by_state: Mapping[StepState, Callable[[Patient], Case]] = {
            "running": self._running,
            "queued": self._queued,
            "scheduled": self._scheduled,
            "retry": self._retry,
            "dead": self._dead,
            "unknown": self._unknown,
            "lost": self._lost,
        }

    def of(self, patient: Patient) -> Case:
        """Diagnose a step that is neither done, cancelled, nor pending."""
        case = self._by_state.get(patient.step.state, self._parked)(patient)
        if patient.barriers_gone and case.outlook != "blocked":
            return _barrier_gone(patient, case.where, case.since)
        return case

    # -- in a queue ------------------------------------------------------------

    def _queued(self, patient: Patient) -> Case:
        seen = patient.seen
        if seen is not None and seen.is_suspect:
            return _suspect(patient)
        if seen is not None and seen.member:
            return self._in_flight(patient, f"fetched ahead by {keys.identity_of(seen.member)}")
        if seen is not None and seen.kind == "fanout":
            return self._in_fanout(patient)
        queue = patient.step.queue
        where = f"in queue {queue!r}"
        blocked = self._paused(patient) or self._without_consumer(patient) or self._without_actor(patient)
        if blocked is not None:
            return attrs.evolve(blocked, where=where, since=patient.pushed)
        names = _several([each.name for each in self.consumers.of(queue)])
        why = f"Its turn has not come: {names} will take it, after the jobs in front of it."
        return Case("queued", "moves", where, why, since=patient.pushed)

    def _in_fanout(self, patient: Patient) -> Case:
        where = "in a fan-out that is not pushed completely"
        if any(each.is_python for each in self.consumers.by_identity.values()):
            return Case("queued", "moves", where, "A Python process pushes the rest at its next beat.")
        why = "The process that pushed it has ended, and no other Python process runs that would go on."
        return Case("no_consumer", "blocked", where, why, ("Start a Python worker.",))

    def _paused(self, patient: Patient) -> Case | None:
        queue = patient.step.queue
        # Sidekiq without Pro knows no pauses.
        if queue not in self.consumers.around.paused or (patient.is_ruby and self.consumers.of(queue)):
            return None
        cure = f"Unpause it: broker.unpause_queue({queue!r}), or in Sidekiq's Web UI."
        return Case("queue_paused", "blocked", "", f"Queue {queue!r} is paused.", (cure,))

    def _without_consumer(self, patient: Patient) -> Case | None:
        consumers, queue = self.consumers, patient.step.queue
        if not queue or consumers.of(queue):
            return None
        served = sorted(consumers.queues)
        if not served:
            why = "No worker process is alive."
        else:
            why = f"No live process consumes queue {queue!r}.{hint(queue, served)} Consumed: {_several(served)}."
        worker = "Ruby's Sidekiq" if patient.is_ruby else "dramatiq"
        start = f"Start a worker that consumes it: {worker} with -{'q' if patient.is_ruby else 'Q'} {queue}."
        cures = (start, f"If the name is wrong, correct it, and start the run again: {patient.fix('cancel')}")
        return Case("no_consumer", "blocked", "", why, cures if served else cures[:1])

    def _without_actor(self, patient: Patient) -> Case | None:
        if patient.is_ruby:
            return None
        queue, name = patient.step.queue, patient.step.name
        known = self.consumers.actors_for(queue)
        if not known or name in known or any(not each.is_python for each in self.consumers.of(queue)):
            return None
        return self._unknown_actor(patient, "")

    # -- in a set --------------------------------------------------------------

    def _scheduled(self, patient: Patient) -> Case:
        return self._due(patient, "scheduled", "in schedule", "It is delayed.")

    def _retry(self, patient: Patient) -> Case:
        step = patient.step
        unknown = self._unknown_name(patient, "in retry")
        if unknown is not None:
            return attrs.evolve(unknown, due=step.due_at)
        times = "once" if step.attempts == 1 else f"{step.attempts} times"
        why = f"It failed {times}, and runs again when it is due. Last error: {_first_line(step.error)}"
        return self._due(patient, "retry", "in retry", why)

    def _due(self, patient: Patient, cause: Cause, where: str, why: str) -> Case:
        due = patient.step.due_at
        late = 0.0 if due is None else self.consumers.now - due.timestamp()
        if late > OVERDUE and not self.consumers.by_identity:
            text = f"{why} It is due, and no worker process is alive that would move it to its queue."
            return Case("no_consumer", "blocked", where, text, ("Start a worker.",), due=due)
        absent = self._without_consumer(patient)
        if absent is None:
            return Case(cause, "waits", where, why, due=due)
        # A worker may still be started.
        return Case(cause, "waits", where, f"{why} By then: {absent.why}", absent.cures, due=due)

    def _dead(self, patient: Patient) -> Case:
        step = patient.step
        unknown = self._unknown_name(patient, "in dead")
        if unknown is not None:
            again = f"Then let it run again: {patient.fix('rerun')}"
            return attrs.evolve(unknown, cures=(*unknown.cures[:1], again, *unknown.cures[1:]), since=step.ended_at)
        error = _first_line(step.error)
        if patient.seen is None:
            why = f"It failed for good: {error}. Its job was deleted from dead since, or fell out of it."
            return Case("job_gone", "blocked", "nowhere", why, _start_again(patient), step.ended_at)
        if patient.barriers_gone or error.startswith("BarrierExpired"):
            return _barrier_gone(patient, "in dead", step.ended_at)
        cures = (
            f"Mend the cause, and let it run again: {patient.fix('rerun')}, or Retry in Sidekiq's Web UI "
            f"(Dead, jid {step.jid}).",
            f"Or go on without it: {patient.fix('release')}",
        )
        return Case("dead", "blocked", "in dead", f"It failed for good: {error}", cures, step.ended_at)

    def _unknown_name(self, patient: Patient, where: str) -> Case | None:
        """The case of a step whose last error says that its class or actor is unknown."""
        error, name = patient.step.error or "", patient.step.name
        if error.startswith(_NO_ACTOR):
            return self._unknown_actor(patient, where)
        found = _NO_CONSTANT.match(error)
        if found is None or not f"{name}::".startswith(f"{found[1]}::"):
            return None
        why = f"Ruby has no class {name}.{hint(name, self.consumers.known_names() - {name})}"
        wrong = f"If the name is wrong, correct it, and start the run again: {patient.fix('cancel')}"
        return Case("unknown_class", "blocked", where, why, ("Deploy the class to the Ruby workers.", wrong))

    def _unknown_actor(self, patient: Patient, where: str) -> Case:
        name, queue = patient.step.name, patient.step.queue
        near = hint(name, self.consumers.known_names() - {name})
        why = f"No Python process that consumes queue {queue!r} has an actor {name!r}.{near}"
        deploy = f"Import the actor's module in a worker of queue {queue!r}; Python takes the job then."
        wrong = f"If the name is wrong, correct it, and start the run again: {patient.fix('cancel')}"
        return Case("unknown_actor", "blocked", where, why, (deploy, wrong))

    # -- at a worker -------------------------------------------------------------

    def _running(self, patient: Patient) -> Case:
        seen, worker = patient.seen, patient.step.worker
        if seen is not None and seen.member:
            return self._in_flight(patient, f"in flight at {worker}")
        consumer = self.consumers.by_identity.get(worker)
        if consumer is not None and self.consumers.is_silent(consumer):
            return self._silent_ruby(patient, consumer)
        return Case("runs", "moves", f"at {worker}", "It runs.", since=patient.step.started_at)

    def _in_flight(self, patient: Patient, where: str) -> Case:
        member = patient.seen.member if patient.seen is not None else ""
        silence, since = self.consumers.silence(member) or 0.0, patient.step.started_at
        if silence <= SILENCE:
            why = "It runs." if patient.step.state == "running" else "Its worker has fetched it, and will run it."
            return Case("runs", "moves", where, why, since=since)
        worker, left = keys.identity_of(member), self.consumers.timeout - silence
        others = [each for name, each in self.consumers.by_identity.items() if name != worker]
        rescuer = any(self._beats(each) for each in others)
        why = f"Its worker {worker} has not beaten for {silence:.0f} s: it was killed, or hangs."
        if not rescuer:
            return Case(
                "dead_worker", "blocked", where, f"{why} No other process runs that would recover the job.",
                ("Start a Python worker: it puts the job back into its queue.",), since,
            )  # fmt: skip
        when = f"in about {left:.0f} s" if left > 0 else "with its next beat, within 10 s"
        return Case(
            "dead_worker", "waits", where, f"{why} Another one puts the job back into its queue {when}.", (), since
        )

    def _beats(self, consumer: Consumer) -> bool:
        return consumer.is_python or any(
            keys.identity_of(member) in consumer.name
            for member, beat in self.consumers.around.beats.items()
            if keys.is_member(member) and self.consumers.now - beat <= self.consumers.timeout
        )

    def _silent_ruby(self, patient: Patient, consumer: Consumer) -> Case:
        silence = self.consumers.now - (consumer.beat or 0.0)
        why = (
            f"Ruby process {consumer.name} has not beaten for {silence:.0f} s; it beats each 10 s. If it was killed, "
            "the job is lost: Sidekiq without super_fetch keeps no copy."
        )
        return Case(
            "silent_ruby", "blocked", f"at {consumer.name}", why, _start_again(patient), patient.step.started_at
        )

    # -- nowhere ------------------------------------------------------------------

    def _unknown(self, patient: Patient) -> Case:
        if self.is_elsewhere:
            return _elsewhere()
        queue = patient.step.queue
        consumers = [each.name for each in self.consumers.of(queue) if not each.is_python]
        if patient.run_state != "stuck" and consumers:
            why = (
                f"A Ruby process without the companion has begun it since its last beat ({_several(consumers)}), or "
                "was killed with it. If it is still so after 15 s, it is lost."
            )
            return Case("unseen_in_ruby", "moves", "not found", why, ("Look again in 15 s; the doctor does so.",))
        why = (
            "A Ruby process without the companion was killed while it ran the step, or after it, before it pushed the "
            "next one: its job is nowhere, and nothing of the run comes after it."
        )
        cures = (*_start_again(patient), "Use the companion in Ruby: its steps are not lost (docs/companion.md).")
        return Case("lost_in_ruby", "blocked", "nowhere", why, cures)

    def _lost(self, patient: Patient) -> Case:
        if self.is_elsewhere:
            return _elsewhere()
        why = "Its job should exist, and is nowhere: it was deleted by hand, or Redis lost it (a failover, a restart)."
        if patient.run_state == "running":
            why += " Other steps of the run go on."
        return Case("lost", "blocked", "nowhere", why, _start_again(patient))

    def _parked(self, patient: Patient) -> Case:
        cure = f"sidekiq-flow runs resume {patient.run_id}"
        return Case("parked", "waits", "parked", "Its run is paused.", (cure,))


def _suspect(patient: Patient) -> Case:
    worker = patient.step.worker
    why = (
        f"A worker ({worker}) died twice while this job was in flight. It is tried alone, by the first process of its "
        "queue that has no other suspect; after a third death it goes to dead."
    )
    return Case("suspect", "waits", f"set aside by {worker}", why)


def _barrier_gone(patient: Patient, where: str, since: datetime | None) -> Case:
    gone = f" ({_several(sorted(patient.barriers_gone))})" if patient.barriers_gone else ""
    is_done = patient.step.state == "dead"
    done = "The step is done, but" if is_done else "When the step is done, the run cannot go on:"
    why = f"{done} the barrier in front of the next one{gone} is gone: it expired, or was deleted."
    cures: tuple[str, ...] = ("Let it run: it goes to dead, and the doctor can release it there.",)
    if is_done:
        cures = (f"Start what remains, without running it again: {patient.fix('release')}",)
    return Case("barrier_gone", "blocked", where, why, cures, since)


def _start_again(patient: Patient) -> tuple[str, ...]:
    return (
        f"Start the workflow again, and end this run: {patient.fix('cancel')}",
        f"Or record the step as failed: {patient.fix('fail')}",
    )


def _elsewhere() -> Case:
    return Case("elsewhere", "moves", "on another broker", "Steps on another broker are not searched for.")


def _first_line(error: str | None) -> str:
    return (error or "no error").splitlines()[0]


def _several(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
