"""Steps as messages of another Dramatiq broker, from their start to their acknowledgement.

RedisBroker, RabbitmqBroker and StubBroker acknowledge a message by themselves,
so what follows a step is written in ``before_ack``; see ``foreign_transport``.
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
from ..store import foreign_runs
from ..wire.lifetimes import DEAD_TIMEOUT
from ..wire.payload import DEFAULTS, Payload, failed
from ..workflow import ttl
from ..workflow.advance import advance
from ..workflow.engine import Engine
from ..workflow.finished_job import FinishedJob
from .bridge import is_away
from .foreign_messages import encode, from_foreign, is_step


class StepUnsettled(FlowError, MiddlewareError, BrokerConnectionError):
    """What follows a step cannot be written yet: Dramatiq tries again, without running the actor again."""


_SKIPPED = "A middleware skipped the step, so what follows it waits."


@attrs.define
class Step:
    """The state of a message while this process works on it.

    Attributes:
      requeued: The message was enqueued again, to be retried.
      corpse: Its payload as it goes to ``dead``, made once.
    """

    message_id: str
    payload: Payload | None = None
    ended: bool = False
    skipped: bool = False
    requeued: bool = False
    output: Any = None
    exception: BaseException | None = None
    corpse: bytes = b""


class ForeignSteps:
    """Follows the messages that this process works on, and advances their runs."""

    def __init__(self, engine: Engine) -> None:
        self.logger = get_logger(__name__, type(self))
        self.engine = engine
        self._doing = threading.local()

    def started(self, message: Any) -> Payload | None:
        """Follow a message whose actor is about to run; the job, if it is one of a workflow."""
        if not is_step(message):
            return None
        step = message.workflow_step = self._doing.step = Step(message.message_id)
        try:
            step.payload = self._payload(message)
            ruby_features.check(step.payload)
        except SkipMessage:
            message.workflow_step = self._doing.step = None
            raise
        except FlowError as e:
            # Its run could not go on after it, so it is not run.
            self.logger.error("Message %s cannot be run and goes to 'dead': %s", message.message_id, e)
            step.exception = e
            message.fail()
        return step.payload

    def _payload(self, message: Any, *, strict: bool = True) -> Payload:
        return from_foreign(message, self.engine.broker.options_of(message.actor_name) or DEFAULTS, strict=strict)

    def finished(self, message: Any, output: Any, exception: BaseException | None, *, skipped: bool = False) -> None:
        """Note that the actor has run, or failed, or was skipped."""
        step = _step(message)
        if step is not None:
            step.ended, step.output, step.skipped = True, output, skipped
            step.exception = exception or step.exception

    def enqueued(self, message: Any) -> None:
        """Note that a message was enqueued: it may be the one that this thread works on, to be retried."""
        step: Step | None = getattr(self._doing, "step", None)
        if step is not None and message.message_id == step.message_id:
            step.requeued = True

    def before_ack(self, message: Any) -> None:
        """Write what follows a message that the broker is about to acknowledge.

        Raises:
          StepUnsettled: if it cannot be written yet; called again later.
        """
        step = _step(message)
        # A message that only moves out of a delay queue was never started.
        if step is None or not step.ended:
            return
        with _trying(message):
            self._settle(message, step)
        self._doing.step = None

    def _settle(self, message: Any, step: Step) -> None:
        """Write what follows a step that has ended: its run goes on, waits for the retry, or the step is dead."""
        payload = step.payload or self._payload(message, strict=False)
        if step.exception is not None and step.requeued:
            self._extend(payload)
        elif step.exception is not None:
            # Without a retry, Dramatiq would acknowledge it as done.
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
            self.logger.error("Step %s is done, but cannot go on, and is now in 'dead': %s", payload.jid, e)
            self._bury(message, e)
        except Exception as e:
            if is_away(e):
                raise
            self.logger.exception("What follows step %s cannot be enqueued; it is now in 'dead'.", payload.jid)
            self._bury(message, e)

    def before_nack(self, message: Any) -> None:
        """Bury a message that the broker is about to reject.

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
        """Write a step to Sidekiq's ``dead``; retried from there, it comes back over the bridge."""
        step = _step(message) or Step(message.message_id)
        message.workflow_step = step
        payload = step.payload or self._payload(message, strict=False)
        if _is_never_dead(payload, failed_itself=error is step.exception):
            if payload.run_id is None and not payload.stack:
                return  # discarded, as Sidekiq does
            self._warn_of_wait(payload)
        now = time.time()
        if not step.corpse:
            # Once: called again, the same bytes are the same member.
            fields = failed(payload.fields, error, now=now, queue=str(payload.fields["queue"]))
            step.corpse = encode(attrs.evolve(payload, fields=fields))
        needs = self.engine.needs(payload, waits=DEAD_TIMEOUT)
        self.engine.broker.process.commit.run(foreign_runs.bury(step.corpse, now=now, needs=needs))

    def _warn_of_wait(self, payload: Payload) -> None:
        self.logger.warning(
            "Step %s (%s) of run %s failed and has retry: false or dead: false, but its run waits for it: it is in "
            "'dead', and retrying it there resumes the run.",
            payload.jid,
            payload.actor_name,
            payload.run_id,
        )

    def _advance(self, step: Step, payload: Payload) -> None:
        output = self.engine.outputs.of(payload, step.output)
        if payload.stack or output.fields:
            advance(FinishedJob(payload, str(payload.fields["queue"]), output), self.engine)


def _is_never_dead(payload: Payload, *, failed_itself: bool) -> bool:
    """Whether a job's options keep it out of ``dead``: ``dead: false``, or ``retry: false`` of a job that failed."""
    fields = payload.fields
    return fields.get("dead") is False or (failed_itself and fields.get("retry") is False)


def _step(message: Any) -> Step | None:
    return getattr(message, "workflow_step", None)


class _trying:
    """Turns any error inside into StepUnsettled, which Dramatiq tries again."""

    def __init__(self, message: Any) -> None:
        self.message = message

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, StepUnsettled):
            raise StepUnsettled(
                f"What follows step {self.message.message_id} cannot be written yet: {error!r}", error
            ) from error
