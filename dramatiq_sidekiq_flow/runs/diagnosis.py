"""Diagnosis of one open step: which case it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from ..wire.own_steps import is_own
from ..wire.run_end import NAME as END
from . import cases
from .consumers import Consumer, Consumers
from .finding import Case
from .patient import Patient
from .step import StepState

#: Seconds without a heartbeat after which a Python process is shown as silent: it beats each 10 seconds.
SILENCE = 25.0

#: Seconds after which a job that is due should have been moved to its queue.
OVERDUE = 60.0

#: What Ruby says of a class that it does not have.
_NO_CONSTANT = re.compile(r"NameError: uninitialized constant ([A-Z]\w*(?:::[A-Z]\w*)*)")

#: What ``unknown_actor`` says.
_NO_ACTOR = "ActorNotFound: "


class Diagnosis:
    """Diagnoses the steps of one run.

    Parameters:
      consumers: The worker processes.
      is_elsewhere: True if steps may be on another broker, where they are not searched for.
    """

    def __init__(self, consumers: Consumers, is_elsewhere: bool = False) -> None:
        self.consumers = consumers
        self.is_elsewhere = is_elsewhere
        #: Queue, name and language of steps -> their case.
        self._in_queues: dict[tuple[str, str, bool], Case | None] = {}
        self._by_state: Mapping[StepState, Callable[[Patient], Case]] = {
            "running": self._running,
            "queued": self._waiting_job,
            "scheduled": self._scheduled,
            "retry": self._retry,
            "signal": lambda patient: self._due(patient, cases.signal(patient)),
            "dead": self._dead,
            "unknown": self._unknown,
            "lost": self._lost,
        }

    def of(self, patient: Patient) -> Case:
        """Diagnose a step that is neither done, cancelled, nor pending."""
        case = self._by_state.get(patient.step.state, cases.parked)(patient)
        if patient.step.name == END:
            return cases.end(patient, case)
        if patient.barriers_gone and case.outlook != "blocked":
            return cases.barrier_gone_ahead(patient, case.where, case.since)
        return case

    # -- in a queue ------------------------------------------------------------

    def _waiting_job(self, patient: Patient) -> Case:
        if patient.is_suspect:
            return cases.suspect(patient.worker)
        if patient.member:
            return self._in_flight(patient, f"fetched ahead by {patient.worker}")
        if patient.kind == "fanout":
            return self._in_fanout()
        return self._queued(patient)

    def _in_fanout(self) -> Case:
        where = "in a fan-out that is not pushed completely"
        return cases.in_fanout(where) if self.consumers.any_python() else cases.in_orphan_fanout(where)

    def _queued(self, patient: Patient) -> Case:
        where = f"in queue {patient.step.queue!r}"
        blocked = self._blocked_in_queue(patient)
        if blocked is not None:
            return attrs.evolve(blocked, where=where, since=patient.queued_at)
        return cases.queued(where, patient.queued_at, self.consumers.names(patient.step.queue))

    def _blocked_in_queue(self, patient: Patient) -> Case | None:
        """The case of a step that no process takes from its queue; the same for all members of a large group."""
        key = (patient.step.queue, patient.step.name, patient.is_ruby)
        if key not in self._in_queues:
            blocked = self._paused(patient) or self._without_consumer(patient) or self._without_actor(patient)
            self._in_queues[key] = blocked
        return self._in_queues[key]

    def _paused(self, patient: Patient) -> Case | None:
        queue = patient.step.queue
        if queue not in self.consumers.around.paused or self._ignores_pauses(patient):
            return None
        return cases.queue_paused(queue)

    def _ignores_pauses(self, patient: Patient) -> bool:
        """Return True if Ruby consumes the queue of a step: Sidekiq without Pro knows no pauses."""
        return patient.is_ruby and bool(self.consumers.of(patient.step.queue))

    def _without_consumer(self, patient: Patient) -> Case | None:
        if not patient.step.queue or self.consumers.of(patient.step.queue):
            return None
        served, start = sorted(self.consumers.queues), cases.start_of(patient)
        return cases.no_consumer(patient, start, served) if served else cases.no_worker(start)

    def _without_actor(self, patient: Patient) -> Case | None:
        known = frozenset() if patient.is_ruby else self.consumers.actors_for(patient.step.queue)
        if not known or patient.step.name in known or is_own(patient.step.name) or patient.step.name == END:
            return None
        return cases.unknown_actor(patient, "", self.consumers.known_names())

    # -- in a set --------------------------------------------------------------

    def _scheduled(self, patient: Patient) -> Case:
        return self._due(patient, cases.waits("scheduled", "in schedule", "It is delayed.", patient.step.due_at))

    def _retry(self, patient: Patient) -> Case:
        unknown, due = self._unknown_name(patient, "in retry"), patient.step.due_at
        if unknown is not None:
            return attrs.evolve(unknown, due=due)
        return self._due(patient, cases.waits("retry", "in retry", cases.why_retry(patient), due))

    def _due(self, patient: Patient, case: Case) -> Case:
        if self._is_overdue(case) and not self.consumers.by_identity:
            return cases.overdue(case)
        absent = self._without_consumer(patient)
        return case if absent is None else cases.waits_without_consumer(case, absent)

    def _is_overdue(self, case: Case) -> bool:
        return case.due is not None and self.consumers.now - case.due.timestamp() > OVERDUE

    def _dead(self, patient: Patient) -> Case:
        unknown = self._unknown_name(patient, "in dead")
        if unknown is not None:
            return _again(unknown, patient)
        if patient.seen is None:
            return cases.job_gone(patient)
        return cases.barrier_gone(patient) if _has_no_barrier(patient) else cases.dead(patient)

    def _unknown_name(self, patient: Patient, where: str) -> Case | None:
        """The case of a step whose last error says that its class or actor is unknown."""
        if patient.error.startswith(_NO_ACTOR):
            return cases.unknown_actor(patient, where, self.consumers.known_names())
        if _says_no_class(patient):
            return cases.unknown_class(patient, where, self.consumers.known_names())
        return None

    # -- at a worker -------------------------------------------------------------

    def _running(self, patient: Patient) -> Case:
        worker = patient.step.worker
        if patient.member:
            return self._in_flight(patient, f"in flight at {worker}")
        consumer = self.consumers.by_identity.get(worker)
        if consumer is not None and self.consumers.is_silent(consumer):
            return cases.silent_ruby(patient, consumer, self.consumers.now - (consumer.beat or 0.0))
        return cases.runs(f"at {worker}", patient.step.started_at)

    def _in_flight(self, patient: Patient, where: str) -> Case:
        silence = self.consumers.silence(patient.member)
        if silence > min(SILENCE, self.consumers.timeout):
            return attrs.evolve(self._at_silent(patient, where, silence), since=patient.step.started_at)
        if patient.step.state == "running":
            return cases.runs(where, patient.step.started_at)
        return cases.fetched(where)

    def _at_silent(self, patient: Patient, where: str, silence: float) -> Case:
        worker = patient.worker
        if not self.consumers.has_rescuer(worker):
            return cases.unrecovered(where, worker, silence)
        return cases.recovered_soon(where, worker, silence, self.consumers.timeout - silence)

    # -- nowhere ------------------------------------------------------------------

    def _unknown(self, patient: Patient) -> Case:
        if self.is_elsewhere:
            return cases.elsewhere()
        names = [each.name for each in self._ruby(patient)]
        if names and patient.run_state != "stuck":
            return cases.unseen_in_ruby(names)
        return cases.lost_in_ruby(patient)

    def _ruby(self, patient: Patient) -> list[Consumer]:
        """The Ruby processes that consume the queue of a step."""
        return [each for each in self.consumers.of(patient.step.queue) if not each.is_python]

    def _lost(self, patient: Patient) -> Case:
        return cases.elsewhere() if self.is_elsewhere else cases.lost(patient)


def _again(unknown: Case, patient: Patient) -> Case:
    """The case of a step of an unknown name that is dead: to deploy its class does not suffice."""
    deploy, *others = unknown.cures
    again = f"Then let it run again: {patient.fix('rerun')}"
    return attrs.evolve(unknown, cures=(deploy, again, *others), since=patient.step.ended_at)


def _has_no_barrier(patient: Patient) -> bool:
    return bool(patient.barriers_gone) or patient.error.startswith("BarrierExpired")


def _says_no_class(patient: Patient) -> bool:
    """Return True if Ruby does not know the class of a step; another constant may be missing in its code."""
    found = _NO_CONSTANT.match(patient.error)
    return found is not None and f"{patient.step.name}::".startswith(f"{found[1]}::")
