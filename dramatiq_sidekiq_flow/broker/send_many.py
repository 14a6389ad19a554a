"""``send_many``: a job for each of many items."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

import dramatiq

from ..errors import ConfigurationError
from .bulk import Bulk
from .bulk_errors import telling
from .bulk_recipe import Recipe
from .sent_messages import SentMessages

R = TypeVar("R")


def send_many(
    actor: dramatiq.Actor[Any, R], items: Iterable[Any], *, delay: timedelta | int | None = None, **options: Any
) -> SentMessages[R]:
    """Send a job for each item, some thousands in one round trip.

    Each job is as :meth:`dramatiq.Actor.send` makes it, with the same checks and hooks.

    Examples:

      >>> send_many(add, [(1, 2), (3, 4)])
      >>> add.send_many([(1, 2), (3, 4)])                  # the same; mypy does not know it
      >>> extract.send_many([ExtractInput("42"), {"doc_id": "43"}])      # a typed actor

    Parameters:
      actor: An actor of a SidekiqBroker.
      items: Of each job, the tuple or list of its arguments; for a typed actor its
        only argument.  A list or tuple is checked as a whole before the first job is
        sent.  Any other iterable is read a thousand items at a time, and not kept.
      delay: Milliseconds, or a timedelta; the same for all jobs.
      **options: Message options, the same for all jobs.

    Returns:
      The messages that were sent.

    Raises:
      InvalidArguments, InvalidInput, InvalidOptions: naming the item.  Of a list or
        tuple nothing is sent then.
      ConfigurationError: if the actor is on another broker.
      EncoderIgnored, ConnectionClosed, NotReplicated: as from ``enqueue()``; no further items
        are sent.

      Each error but ConfigurationError has an attribute ``sent``: the messages, from the first item on,
      that are in Redis.  After ConnectionClosed some of those after them may be
      there, too, at most four script calls of a thousand jobs or 1 MiB.
    """
    bulk = getattr(actor.broker, "bulk", None)
    if not isinstance(bulk, Bulk):
        raise ConfigurationError(
            f"{actor.actor_name} is on a {type(actor.broker).__name__}, and send_many() needs a SidekiqBroker. "
            "Use send() for each item.",
            actor.broker,
        )
    with telling(()):
        bulk.broker.check_encoder()
        recipe = Recipe.of(actor, options)
    return bulk.send(recipe, items, delay)
