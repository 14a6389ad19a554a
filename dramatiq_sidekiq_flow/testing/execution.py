"""Runs one job up to its acknowledgement, in the calling thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dramatiq.logging import get_logger
from dramatiq.middleware import SkipMessage

from ..broker import Retries, SidekiqBroker, SidekiqConsumer, SidekiqMessage
from ..broker.dramatiq_internals import exception_of
from ..broker.retries import decide
from ..middleware import WorkflowMiddleware
from ..wire.payload_fields import DIED_IN_KEY, STEP_KEY
from ..wire.run_end import is_end

_logger = get_logger(__name__)


def execute(
    broker: SidekiqBroker, consumer: SidekiqConsumer, message: SidekiqMessage, fake: Callable[..., Any] | None
) -> tuple[Any, Exception | None]:
    """Run a job, and acknowledge it.

    Parameters:
      fake: The function that stands for the job's Ruby class; None for an actor.

    Returns:
      The output of the job, and its error.
    """
    output, error = None, None
    try:
        output = _perform(broker, message) if fake is None else _act(broker, message, fake)
    except Exception as e:
        error = e
    if message.failed:
        broker.emit_before("nack", message)
        consumer.nack(message)
        broker.emit_after("nack", message)
    else:
        broker.emit_before("ack", message)
        consumer.ack(message)
        broker.emit_after("ack", message)
    # The acknowledgement may fail a job that was run.
    refused = exception_of(message)
    message.clear_exception()
    return output, error or (refused if isinstance(refused, Exception) else None)


def _perform(broker: SidekiqBroker, message: SidekiqMessage) -> Any:
    """Run an actor as Dramatiq's worker does (``worker.py``, ``process_message``)."""
    try:
        broker.emit_before("process_message", message)
        output = None
        if not message.failed:
            output = broker.get_actor(message.actor_name)(*message.args, **message.kwargs)
        broker.emit_after("process_message", message, result=output)
        return output
    except SkipMessage as e:
        if message.failed:
            message.stuff_exception(e)
        broker.emit_after("skip_message", message)
        raise
    except Exception as e:
        message.stuff_exception(e)
        broker.emit_after("process_message", message, exception=e)
        raise


def _act(broker: SidekiqBroker, message: SidekiqMessage, fake: Callable[..., Any]) -> Any:
    """Run a fake as a Ruby worker would: with current_run(), and Sidekiq's retries."""
    flow = _workflow_middleware(broker)
    if flow is not None:
        flow.before_process_message(broker, message)
    try:
        output = fake(*message.args)
    except Exception as e:
        message.failure = decide(message.payload, message.queue_name, e, None, Retries())
        if flow is not None:
            flow.after_process_message(broker, message, exception=e)
        raise
    if flow is not None:
        flow.after_process_message(broker, message, result=output)
    return output


def _workflow_middleware(broker: SidekiqBroker) -> WorkflowMiddleware | None:
    found = [middleware for middleware in broker.middleware if isinstance(middleware, WorkflowMiddleware)]
    return found[0] if found else None


def ends_run(message: SidekiqMessage) -> bool:
    """Return True if a job is not a step, but ends a run whose last step Ruby runs."""
    return is_end(message.payload.fields.get(STEP_KEY))


def is_of(run_id: str, fields: Mapping[str, Any]) -> bool:
    """Return True if a payload belongs to a run."""
    return run_id in (fields.get("workflow_run_id"), fields.get("sideline_run_id"), fields.get(DIED_IN_KEY))


def quietly(hook: Callable[..., Any], *args: Any) -> None:
    """Call a hook of a middleware; log its error."""
    try:
        hook(*args)
    except Exception as e:
        _logger.warning("A hook of a middleware failed; the test continues: %s", e)
