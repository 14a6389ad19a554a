"""Processing of steps on another Dramatiq broker, from their start to their acknowledgement.

RedisBroker, RabbitmqBroker and StubBroker acknowledge a message by themselves,
so the run is advanced in ``before_ack``; see ``foreign_transport``.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import attrs
from dramatiq.errors import BrokerConnectionError
from dramatiq.logging import get_logger
from dramatiq.middleware import MiddlewareError, SkipMessage

from ..broker import ruby_features
from ..broker.dramatiq_internals import exception_of
from ..errors import FlowError, StepRejected, StepSkipped
from ..store import foreign_runs, runs
from ..wire import codec
from ..wire.lifetimes import DEAD_TIMEOUT
from ..wire.payload import DEFAULTS, Payload, failed
from ..wire.payload_fields import is_callback
from ..wire.replace import Replace
from ..workflow import death_policy, ttl
from ..workflow.advance import advance
from ..workflow.engine import Engine
from ..workflow.finished_job import FinishedJob
from ..workflow.replacement import cannot_replace
from .bridge import is_away
from .foreign_messages import encode, from_foreign, is_step


class StepUnsettled(FlowError, MiddlewareError, BrokerConnectionError):
    """A run cannot be advanced past its step yet: Dramatiq tries again, without running the actor again."""


_SKIPPED = "A middleware skipped the step, so the next steps wait."


@attrs.define
class Step:
    """State of a message while this process works on it.

    Attributes:
      ended: True if the actor has returned or raised, or was skipped.
      requeued: True if the message was enqueued again, as a retry.
      dead_payload: Its payload for ``dead``, encoded once.
      began: When its actor started, epoch seconds.
    """

    message_id: str
    payload: Payload | None = None
    ended: bool = False
    skipped: bool = False
    requeued: bool = False
    output: Any = None
    exception: BaseException | None = None
    dead_payload: bytes = b""
    began: float = attrs.field(factory=time.time)


class ForeignSteps:
    """Tracker of the messages that this process works on; advances their runs."""

    def __init__(self, engine: Engine) -> None:
        self.logger = get_logger(__name__, type(self))
        self.engine = engine
        self._doing = threading.local()

    def started(self, message: Any) -> Payload | None:
        """Follow a message before its actor runs.  Return its job; None if it is not a job of Sidekiq or a run."""
        if not is_step(message):
            return None
        step = message.workflow_step = self._doing.step = Step(message.message_id)
        try:
            step.payload = self._payload(message)
            ruby_features.check(step.payload)
            if self.engine.broker.process.cancelled_runs.halts(step.payload) == "cancelled":
                raise SkipMessage(f"The run of step {message.message_id} was cancelled.")
        except SkipMessage:
            message.workflow_step = self._doing.step = None
            raise
        except FlowError as e:
            # Its run could not be advanced after it, so the actor is not run.
            self.logger.error("Message %s is invalid; it is not run, and goes to 'dead': %s", message.message_id, e)
            step.exception = e
            message.fail()
        return step.payload

    def _payload(self, message: Any, *, strict: bool = True) -> Payload:
        return from_foreign(message, self.engine.broker.options_of(message.actor_name) or DEFAULTS, strict=strict)

    def finished(self, message: Any, output: Any, exception: BaseException | None, *, skipped: bool = False) -> None:
        """Record that the actor has returned or raised, or was skipped."""
        step = _step(message)
        if step is not None:
            step.ended, step.output, step.skipped = True, output, skipped
            step.exception = exception or step.exception

    def enqueued(self, message: Any) -> None:
        """Record that a message was enqueued; if this thread works on it, it is a retry."""
        step: Step | None = getattr(self._doing, "step", None)
        if step is not None and message.message_id == step.message_id:
            step.requeued = True

    def before_ack(self, message: Any) -> None:
        """Advance the run of a message that the broker is about to acknowledge.

        Raises:
          StepUnsettled: if that is not possible yet; Dramatiq calls this again.
        """
        step = _step(message)
        # A message that was only moved out of a delay queue has not started.
        if step is None or not step.ended:
            return
        with _trying(message):
            self._settle(message, step)
        self._doing.step = None

    def _settle(self, message: Any, step: Step) -> None:
        """Settle a step that has ended: advance its run, extend it for the retry, or move the step to ``dead``."""
        payload = step.payload or self._payload(message, strict=False)
        if step.exception is not None and step.requeued:
            self._extend(payload)
        elif step.exception is not None:
            # Without a retry, Dramatiq acknowledges the message as if it were done.
            self._bury(message, step.exception)
        elif step.skipped:
            self._bury(message, StepSkipped(_SKIPPED, message.message_id))
        else:
            self._advance_or_bury(message, step, payload)

    def _advance_or_bury(self, message: Any, step: Step, payload: Payload) -> None:
        try:
            self._advance(step, payload)
        except StepUnsettled:
            raise
        except FlowError as e:
            self.logger.error("Step %s is done, but its run cannot continue; it goes to 'dead': %s", payload.jid, e)
            self._bury(message, e)
        except Exception as e:
            if is_away(e):
                raise
            self.logger.exception("The next steps of %s cannot be enqueued; the step goes to 'dead'.", payload.jid)
            self._bury(message, e)

    def before_nack(self, message: Any) -> None:
        """Move a step to ``dead`` that the broker is about to reject.

        Raises:
          StepUnsettled: as :meth:`before_ack`.
        """
        if not is_step(message):
            return
        step = _step(message)
        error = (step and step.exception) or exception_of(message)
        if error is None:
            error = StepRejected("The message was rejected by the worker or a middleware.", message.message_id)
        with _trying(message):
            self._bury(message, error)
        self._doing.step = None

    def _extend(self, payload: Payload) -> None:
        if payload.run_id is not None:
            ttl.extend(self.engine, payload, None)

    def _bury(self, message: Any, error: BaseException) -> None:
        """Move a step to Sidekiq's ``dead``; if it is retried there, the bridge brings it back."""
        step = _step(message) or Step(message.message_id)
        message.workflow_step = step
        payload = step.payload or self._payload(message, strict=False)
        if _is_never_dead(payload, failed_itself=error is step.exception):
            if payload.run_id is None and not payload.stack:
                return  # discarded, as in Sidekiq
            self._warn_of_wait(payload)
        now = time.time()
        if not step.dead_payload:
            # Encoded once: a repeated call must write the same member of ``dead``.
            fields = failed(payload.fields, error, now=now, queue=str(payload.fields["queue"]))
            step.dead_payload = encode(payload._replace(fields=fields))
        if self._replace(step, payload, now):
            return
        needs = self.engine.needs(payload, waits=DEAD_TIMEOUT)
        death = self.engine.records.of_death(payload, codec.decode(step.dead_payload, limited=False), now)
        self.engine.broker.process.commit.run(foreign_runs.bury(step.dead_payload, now=now, needs=needs, death=death))

    def _replace(self, step: Step, payload: Payload, now: float) -> bool:
        """Let others take the place of a step that failed for good; return False if nothing does.

        They go to Sidekiq's queues, in the script that buries the step; the bridge brings them here.
        """
        found = death_policy.replacement(self.engine, payload, step.dead_payload, now)
        if found is None:
            return False
        connection = self.engine.broker.connection
        found.write(
            self.engine.broker.process.commit.run,
            lambda plan: foreign_runs.bury(found.payload, now=now, needs=found.needs, death=found.death, plan=plan),
            lambda plan: runs.writes(connection, plan.barriers, plan.pushes, plan.scheduled),
        )
        return True

    def _warn_of_wait(self, payload: Payload) -> None:
        self.logger.warning(
            "Step %s (%s) of run %s failed and has retry: false or dead: false, but its run waits for it: it goes to "
            "'dead', and a retry from there resumes the run.",
            payload.jid,
            payload.actor_name,
            payload.run_id,
        )

    def _advance(self, step: Step, payload: Payload) -> None:
        if isinstance(step.output, Replace):
            raise cannot_replace(payload.jid)
        if is_callback(payload.fields):
            return
        output = self.engine.outputs.of(payload, step.output)
        record = self.engine.records.of_step(payload, step.began)
        if payload.stack or output.fields or record.key:
            advance(FinishedJob(payload, str(payload.fields["queue"]), output, None, record), self.engine)


def _is_never_dead(payload: Payload, *, failed_itself: bool) -> bool:
    """Return True if options keep a job out of ``dead``: ``dead: false``, or ``retry: false`` if it failed itself."""
    fields = payload.fields
    return fields.get("dead") is False or (failed_itself and fields.get("retry") is False)


def _step(message: Any) -> Step | None:
    return getattr(message, "workflow_step", None)


class _trying:
    """Context manager that turns errors into StepUnsettled, after which Dramatiq tries again."""

    def __init__(self, message: Any) -> None:
        self.message = message

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, StepUnsettled):
            raise StepUnsettled(
                f"The run cannot be advanced past step {self.message.message_id} yet: {error!r}", error
            ) from error
