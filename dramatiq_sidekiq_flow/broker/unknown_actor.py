"""The error of a job whose class is not an actor of this process."""

from __future__ import annotations

import logging
from collections.abc import Collection

from dramatiq.errors import ActorNotFound

from ..wire.near_names import hint
from .dramatiq_internals import consumer_logger

#: Dramatiq's log line says this, which is wrong for this broker.
_MOVING = "Moving it to the DLQ"

#: Characters of an unknown name that are shown.
_SHOWN = 200


class UnknownActor(ActorNotFound):
    """Dramatiq's ActorNotFound, with a message that says that the job is retried."""


# Written to payloads as `error_class`, which operators see and match.
UnknownActor.__name__ = UnknownActor.__qualname__ = "ActorNotFound"


def unknown_actor(name: str, known: Collection[str], queue: str = "") -> ActorNotFound:
    """Make the error of a job whose actor is unknown.

    Parameters:
      known: The names of the actors of this process.
      queue: The queue that the job came from.
    """
    text = name[:_SHOWN]
    came = f" (queue {queue!r})" if queue else ""
    error: ActorNotFound = UnknownActor(  # type: ignore[no-untyped-call]
        f"No actor here is named {text!r}{came}.{hint(text, known)} The job is retried, as Sidekiq "
        "retries an unknown class: import the actor's module in this worker, or let the worker that has it "
        "consume the queue."
    )
    return error


class _NotToDlq(logging.Filter):
    """Replaces Dramatiq's line about an unknown actor; leaves those of other brokers alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, UnknownActor) and _MOVING in str(record.msg):
            record.msg, record.args, record.exc_info = "%s", (str(error),), None
        return True


def correct_log(queue: str) -> None:
    """Correct Dramatiq's log line about unknown actors, for a queue of this broker."""
    logger = consumer_logger(queue)
    if not any(isinstance(f, _NotToDlq) for f in logger.filters):
        logger.addFilter(_NotToDlq())
