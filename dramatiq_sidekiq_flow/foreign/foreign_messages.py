"""Steps as messages of another Dramatiq broker.

There a step is a message like any other.  Its run id and callback stack are
message options of the wire's own names; what else a Sidekiq job holds
(``tags``, ``cattr``, ``traceparent`` ...) is carried along in one option,
``sidekiq``, and is there again when a next step leaves for Ruby.
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
from ..wire.payload import Payload

#: The message option with the rest of a Sidekiq job.
SIDEKIQ_KEY = "sidekiq"

#: Written by the broker itself, or anew where the step goes next.
_TRANSIENT = DERIVED | {"redis_message_id"}

#: Keys of a payload that a message says in its own way, or that end with the
#: job's stay in a queue or set.
_SAID = KEYS | {"class", "args", "jid", "queue", "retry", "enqueued_at", "at", DRAMATIQ_KEY}


def is_step(message: Any) -> bool:
    """Whether a message belongs to a workflow, or came from Sidekiq's queues."""
    options = message.options
    return SIDEKIQ_KEY in options or any(key in options for key in KEYS)


def to_foreign(payload: Payload, queue: str) -> dramatiq.Message[Any]:
    """The message of a payload.

    Parameters:
      queue: The queue of the other broker.
    """
    fields = payload.fields
    options = message_options.read(fields.get(DRAMATIQ_KEY))
    retry = fields.get("retry")
    if retry is False:
        options["max_retries"] = 0  # and discarded, where a 0 of itself is dead
    elif type(retry) is int:
        options["max_retries"] = retry
    options.update((key, fields[key]) for key in KEYS if key in fields)
    options[SIDEKIQ_KEY] = _rest_of(payload)
    return dramatiq.Message(
        queue_name=queue,
        actor_name=payload.actor_name,
        # Other brokers' messages are JSON: an ActiveJob's dates and decimals are text there.
        args=tuple(msgspec.to_builtins(payload.args)),
        kwargs=msgspec.to_builtins(payload.kwargs),
        options=options,
        message_id=payload.jid,
    )


def _rest_of(payload: Payload) -> dict[str, Any]:
    """The keys of a job that its message does not say in its own way."""
    fields = payload.fields
    rest = {key: value for key, value in fields.items() if key not in _SAID}
    if fields.get("retry") is False:
        rest["retry"] = False
    if fields["class"] != payload.actor_name:
        rest["class"] = fields["class"]
    if fields["args"] != payload.args:
        rest["args"] = fields["args"]
    return rest


def from_foreign(message: Any, of_actor: Mapping[str, Any], *, strict: bool = True) -> Payload:
    """The job of a message, as Sidekiq would hold it; its ``raw`` is empty.

    Parameters:
      of_actor: The actor's own job options.
      strict: False where the callback stack is only to be kept, not read.

    Raises:
      InvalidCallbacks, InvalidNode: for a callback stack that is none.
    """
    fields = _fields_of(message, of_actor)
    dialect = detect(fields)
    stack = load_stack(fields.get(dialect.callbacks_key)) if strict else ()
    return Payload(b"", fields, message.actor_name, list(message.args), message.message_id, stack, dialect)


def _fields_of(message: Any, of_actor: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the payload that a message stands for."""
    options = {key: value for key, value in message.options.items() if key not in _TRANSIENT}
    rest = options.pop(SIDEKIQ_KEY, None)
    retry = options.pop("max_retries", None)
    said = {key: options.pop(key) for key in KEYS & options.keys()}
    fields: dict[str, Any] = {
        **of_actor,
        "class": message.actor_name,
        "args": list(message.args),
        "created_at": message.message_timestamp / 1000,
        **(rest if type(rest) is dict else {}),
        **said,
        "queue": q_name(message.queue_name),
        "jid": message.message_id,
    }
    if retry is not None and fields["retry"] is not False:
        fields["retry"] = retry
    if options:
        fields[DRAMATIQ_KEY] = options
    return fields


def encode(payload: Payload) -> bytes:
    """The bytes of a payload that :func:`from_foreign` made."""
    return codec.encode(payload.fields)
