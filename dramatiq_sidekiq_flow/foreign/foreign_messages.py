"""Conversion of steps to messages of another Dramatiq broker, and back.

On that broker a step is an ordinary message.  Its run id and callback stack are
message options with the names that a payload uses.  The other keys of a Sidekiq
job (``tags``, ``cattr``, ``traceparent`` ...) are in one option, ``sidekiq``, so
that a next step in Ruby gets them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dramatiq
import msgspec
from dramatiq.common import q_name

from ..broker import message_options
from ..broker.message import DERIVED, DRAMATIQ_KEY
from ..wire import codec
from ..wire.callbacks import load_stack
from ..wire.dialect import KEYS, detect
from ..wire.payload import Payload, read_run_id

#: Message option with the other keys of a Sidekiq job.
SIDEKIQ_KEY = "sidekiq"

#: Message options that the broker writes itself, or that are written again for the next queue.
_TRANSIENT = DERIVED | {"redis_message_id"}

#: Keys of a payload that are not in SIDEKIQ_KEY: a message has fields or options
#: for them, or they apply only while the job is in a queue or set.
_MESSAGE_KEYS = KEYS | {"class", "args", "jid", "queue", "retry", "enqueued_at", "at", DRAMATIQ_KEY}


def is_step(message: Any) -> bool:
    """Return True if a message belongs to a workflow, or came from Sidekiq's queues."""
    options = message.options
    return SIDEKIQ_KEY in options or any(key in options for key in KEYS)


def to_foreign(payload: Payload, queue: str) -> dramatiq.Message[Any]:
    """Make the message of a payload.

    Parameters:
      queue: The queue of the other broker.
    """
    fields = payload.fields
    options = message_options.read(fields.get(DRAMATIQ_KEY))
    retry = fields.get("retry")
    if retry is False:
        options["max_retries"] = 0  # SIDEKIQ_KEY keeps the False: discarded, while retry: 0 is dead
    elif type(retry) is int:
        options["max_retries"] = retry
    options.update((key, fields[key]) for key in KEYS if key in fields)
    options[SIDEKIQ_KEY] = _rest_of(payload)
    return dramatiq.Message(
        queue_name=queue,
        actor_name=payload.actor_name,
        # Messages of other brokers are JSON, so the dates and decimals of an ActiveJob become text.
        args=tuple(msgspec.to_builtins(payload.args)),
        kwargs=msgspec.to_builtins(payload.kwargs),
        options=options,
        message_id=payload.jid,
    )


def _rest_of(payload: Payload) -> dict[str, Any]:
    """Collect the keys of a job that its message has no other place for."""
    fields = payload.fields
    rest = {key: value for key, value in fields.items() if key not in _MESSAGE_KEYS}
    if fields.get("retry") is False:
        rest["retry"] = False
    if fields["class"] != payload.actor_name:
        rest["class"] = fields["class"]
    if fields["args"] != payload.args:
        rest["args"] = fields["args"]
    return rest


def from_foreign(message: Any, of_actor: Mapping[str, Any], *, strict: bool = True) -> Payload:
    """Make the payload of a message; its ``raw`` is empty.

    Parameters:
      of_actor: The job options of the actor.
      strict: False keeps the callback stack without reading it.

    Raises:
      InvalidCallbacks, InvalidNode: if the callback stack is invalid.
    """
    fields = _fields_of(message, of_actor)
    dialect = detect(fields)
    stack = load_stack(fields.get(dialect.callbacks_key)) if strict else ()
    return Payload(
        b"",
        fields,
        message.actor_name,
        list(message.args),
        message.message_id,
        stack,
        dialect,
        run_id=read_run_id(fields, dialect),
    )


def _fields_of(message: Any, of_actor: Mapping[str, Any]) -> dict[str, Any]:
    """Make the keys of the payload of a message."""
    options = {key: value for key, value in message.options.items() if key not in _TRANSIENT}
    rest = options.pop(SIDEKIQ_KEY, None)
    retry = options.pop("max_retries", None)
    of_workflow = {key: options.pop(key) for key in KEYS & options.keys()}
    fields: dict[str, Any] = {
        **of_actor,
        "class": message.actor_name,
        "args": list(message.args),
        "created_at": message.message_timestamp / 1000,
        **(rest if type(rest) is dict else {}),
        **of_workflow,
        "queue": q_name(message.queue_name),
        "jid": message.message_id,
    }
    if retry is not None and fields["retry"] is not False:
        fields["retry"] = retry
    if options:
        fields[DRAMATIQ_KEY] = options
    return fields


def encode(payload: Payload) -> bytes:
    """Encode a payload that :func:`from_foreign` made."""
    return codec.encode(payload.fields)
