"""Jobs that no actor of this process has the name of."""

from __future__ import annotations

import logging
from collections.abc import Collection

from dramatiq.errors import ActorNotFound

from ..wire.near_names import hint
from .dramatiq_internals import consumer_logger

#: Dramatiq's words, which do not hold here.
_MOVING = "Moving it to the DLQ"

#: How much of a name that is not an actor's is shown.
_SHOWN = 200


class UnknownActor(ActorNotFound):
    """As Dramatiq's, saying what becomes of the job."""


# What operators see as `error_class`, and match.
UnknownActor.__name__ = UnknownActor.__qualname__ = "ActorNotFound"


def unknown_actor(name: str, known: Collection[str], queue: str = "") -> ActorNotFound:
    """The error of a job whose actor is not here.

    Parameters:
      known: The names of the actors of this process.
      queue: Where the job came from.
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
    """Says of an unknown actor what happens here, and leaves other brokers' words alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, UnknownActor) and _MOVING in str(record.msg):
            record.msg, record.args, record.exc_info = "%s", (str(error),), None
        return True


def correct_log(queue: str) -> None:
    """Replace Dramatiq's line, for the jobs of a queue of this broker."""
    logger = consumer_logger(queue)
    if not any(isinstance(f, _NotToDlq) for f in logger.filters):
        logger.addFilter(_NotToDlq())
