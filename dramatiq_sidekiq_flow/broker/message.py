"""Payloads to Dramatiq messages, and messages to payloads.

A message's ``message_id`` is the jid, ``actor_name`` the class and
``message_timestamp`` the time of creation.  Options that Sidekiq knows stand
beside the class, as Ruby writes them; what only Dramatiq's middleware
understands (``on_success``, ``pipe_target``, ``time_limit`` ...) travels in
one object under the key ``dramatiq``, which Ruby carries along unread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextvars import Context
from functools import cached_property
from typing import Any

import dramatiq
import msgspec
from dramatiq.broker import MessageProxy

from ..errors import InvalidArguments, StepEnqueuedItself, shortened
from ..wire import codec
from ..wire.callbacks import Callback
from ..wire.option_rules import check_options
from ..wire.payload import NAMESPACE_KEY, Payload, is_inherited
from ..wire.payload_fields import WRAPPERS, seconds
from ..wire.replace import Changes
from ..wire.tree_schema import MAX_NAME
from . import message_options
from .dramatiq_internals import dict_of
from .retries import Failure

#: Sidekiq's job options, and a workflow's own, as actor or message options of the same name.
SIDEKIQ_OPTIONS = frozenset(("retry", "dead", "backtrace", "tags", "retry_for", "retry_queue", NAMESPACE_KEY))

#: The key for the options that only Dramatiq knows.
DRAMATIQ_KEY = "dramatiq"

#: Message options that say how often it was tried: derived, never written.
DERIVED = frozenset(("retries", "eta", "traceback", "requeue_timestamp"))


def new_jid() -> str:
    """24 hex digits (``job_util.rb``, ``SecureRandom.hex(12)``)."""
    return os.urandom(12).hex()


def mark_sent(message: Any) -> None:
    """Remember that a message was sent: as a step of a workflow it would run a second time."""
    message.__dict__["sidekiq_sent"] = True


def was_sent(message: Any) -> bool:
    """Return True if this very message was sent."""
    return "sidekiq_sent" in message.__dict__


def check_not_itself(message: Any, job: Payload) -> None:
    """Check that a step does not enqueue its own message.

    Parameters:
      job: The job that this thread works on.

    Raises:
      StepEnqueuedItself: if it does.
    """
    if job.jid == message.message_id and (job.stack or job.run_id):
        raise enqueued_itself(message)


def enqueued_itself(message: Any) -> StepEnqueuedItself:
    """The error of a step that is about to enqueue its own message."""
    return StepEnqueuedItself(
        f"{message.actor_name} is a step of a workflow and enqueues its own message: the step would count as done, "
        "and its second run would belong to no workflow. To run it again later: "
        "raise dramatiq.errors.Retry(delay=...).",
        message.message_id,
    )


class SidekiqMessage(MessageProxy):
    """A message in flight.

    Attributes:
      payload: The job as it was read.
      member: The holder of it in flight (worker process and queue).
      receipt: Its field in the in-flight hash.
      output: What the actor returned.
      failure: The decision about it, if it failed (``retries.decide``).
      began: When its actor started, epoch seconds; None unless it is a step of a run.
      skipped: Whether a middleware skipped it.
      cancelled: Whether an operator cancelled it.
      context: The context in which the actor ran; enqueue hooks of the next steps run in it.
      dropped: Whether it does not run, since its run is cancelled or paused.
      parked: Whether it is parked instead, since its run is paused.
      gone: Whether it left flight before it began: another worker has recovered it.
      unsure: Whether it is unknown if Redis has marked it as begun.
      offer: Receipt that was offered for the next job of its chain; "" if none was.
      next_job: Payload of that job, if this process has taken it.
      next_stack: Callback stack of that job; None if it is not known.
      alone: Whether it must be acknowledged by itself.
      changes: What its step asked for (``current_run().replace``); None if it did not ask for its run.
      waits: Whether it waits for a signal now (``WaitFor``).
    """

    failed = False
    output: Any = None
    failure: Failure | None = None
    began: float | None = None
    skipped = False
    cancelled = False
    context: Context | None = None
    dropped = False
    parked = False
    gone = False
    unsure = False
    offer = ""
    next_job: bytes | None = None
    next_stack: tuple[Callback, ...] | None = None
    alone = False
    changes: Changes | None = None
    waits = False
    _exception: BaseException | None = None

    # Not that of MessageProxy, whose message is made on demand: Dramatiq reads
    # the attributes some twenty times a job, and most jobs need nothing else.
    def __init__(self, payload: Payload, queue_name: str, member: str, receipt: str) -> None:
        self.queue_name = queue_name
        self.actor_name = payload.actor_name
        self.args = tuple(payload.args)
        self.kwargs = dict(payload.kwargs)
        self.options = _options(payload)
        self.message_id = payload.jid
        self.payload = payload
        self.member = member
        self.receipt = receipt
        # Dramatiq before 2.2 deletes it.
        self._exception = None

    @cached_property
    def message_timestamp(self) -> int:  # type: ignore[override]
        """When it was made, epoch milliseconds.

        A payload that does not say it counts as made now, so that a limit of age
        does not drop it.
        """
        fields = self.payload.fields
        created = seconds(fields.get("created_at")) or seconds(fields.get("enqueued_at")) or time.time()
        return int(created * 1000)

    @cached_property
    def _message(self) -> dramatiq.Message[Any]:  # type: ignore[override]
        return dramatiq.Message(
            queue_name=self.queue_name,
            actor_name=self.actor_name,
            args=self.args,
            kwargs=self.kwargs,
            options=self.options,
            message_id=self.message_id,
            message_timestamp=self.message_timestamp,
        )

    @property
    def exception(self) -> BaseException | None:
        """The exception that the actor raised."""
        return self._exception

    def asdict(self) -> dict[str, Any]:
        """The message as a dict of JSON values, as it is sent to ``on_failure`` and its like.

        The dates and decimals of an ActiveJob are text there.
        """
        fields = dict_of(self)
        if self.payload.fields["class"] in WRAPPERS:
            fields["args"] = msgspec.to_builtins(fields["args"])
            fields["kwargs"] = msgspec.to_builtins(fields["kwargs"])
        return fields


def _options(payload: Payload) -> dict[str, Any]:
    """The message options of a payload taken from a queue."""
    fields = payload.fields
    options = message_options.read(fields[DRAMATIQ_KEY]) if DRAMATIQ_KEY in fields else {}
    if "retry_count" in fields and payload.retries:
        options.update(_retry_options(payload))
    return options


def _retry_options(payload: Payload) -> dict[str, int]:
    """The options that Dramatiq sets on a message that is retried."""
    options = {"retries": payload.retries}
    failed = seconds(payload.fields.get("retried_at")) or seconds(payload.fields.get("failed_at"))
    if failed is not None:
        options["requeue_timestamp"] = int(failed * 1000)
    return options


def actor_options(actor: dramatiq.Actor[Any, Any]) -> dict[str, Any]:
    """The options that an actor's jobs carry: ``retry`` and ``queue`` always."""
    retry = actor.options.get("max_retries", actor.options.get("retry", True))
    options = {"retry": True if retry is None else retry, "queue": actor.queue_name}
    options.update((name, actor.options[name]) for name in SIDEKIQ_OPTIONS - {"retry"} if name in actor.options)
    check_options(options)
    return options


def job_options(message: dramatiq.Message[Any], of_actor: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one message on top of its actor's.

    Raises:
      InvalidArguments: if there are keyword arguments, or options that are not JSON.
    """
    if message.kwargs:
        raise InvalidArguments(
            f"{message.actor_name} was sent keyword arguments ({', '.join(message.kwargs)}), which a Sidekiq job does "
            "not have. Send them by position, or make it a typed actor, which takes one object.",
            message.kwargs,
        )
    options: dict[str, Any] = {**of_actor, "queue": message.queue_name}
    if message.options:
        explicit, others = split_options(message.options)
        options.update(explicit)
        if others:
            options[DRAMATIQ_KEY] = others
    return options


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Message options as a payload holds them.

    Returns:
      Options to write beside the class, and those that only Dramatiq knows.

    Raises:
      InvalidArguments, InvalidOptions: naming the option.
    """
    others = _written_options(options)
    explicit = {name: others.pop(name) for name in SIDEKIQ_OPTIONS & others.keys()}
    check_options(explicit)
    if others:
        codec.check(others, "options")
        # Context that a message is given: Ruby reads it beside the class, Dramatiq's middleware in the options.
        explicit.update((name, value) for name, value in others.items() if is_inherited(name))
    return explicit, others


def _written_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a payload holds, ``max_retries`` under Sidekiq's name."""
    others = {name: value for name, value in options.items() if name not in DERIVED}
    retry = others.pop("max_retries", None)
    if retry is not None:
        others["retry"] = retry
    return others


def step_message(fields: Mapping[str, Any], actor_name: str) -> dramatiq.Message[Any]:
    """The message of a step that is about to be pushed."""
    return dramatiq.Message(
        queue_name=fields["queue"],
        actor_name=actor_name,
        args=tuple(fields["args"]),
        kwargs={},
        options=message_options.read(fields.get(DRAMATIQ_KEY)),
        message_id=fields["jid"],
        message_timestamp=int(fields["created_at"] * 1000),
    )


def to_fields(message: dramatiq.Message[Any], of_actor: Mapping[str, Any], *, now: float) -> dict[str, Any]:
    """The payload of a message, before it is known when it is pushed.

    Raises:
      InvalidArguments, InvalidOptions: at the caller.
    """
    codec.check(message.args, "args")
    if len(message.actor_name) > MAX_NAME:
        raise InvalidArguments(
            f"An actor's name has at most {MAX_NAME} characters, and {shortened(message.actor_name)} has "
            f"{len(message.actor_name)}.",
            message.actor_name,
        )
    fields = job_options(message, of_actor)
    fields["class"] = message.actor_name
    fields["args"] = message.args
    fields["jid"] = message.message_id
    fields["created_at"] = now
    return fields
