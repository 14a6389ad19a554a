"""How long the parts of a run live in Redis.  All in seconds."""

from __future__ import annotations

import time

from .callbacks import Callback, delay_ahead, wait_until
from .nodes import Wire, latest_start, total_delay
from .payload import Payload

#: Sidekiq's 25 retries take about 21 days: a barrier outlives them.
RETRY_HORIZON = 21 * 86_400

#: A released barrier is kept for a day, as in the gem: for a duplicate that comes late.
RELEASED_TTL = 86_400

#: Redis refuses a TTL whose end it cannot count.
MAX_TTL = 1000 * 365 * 86_400

#: How long ``dead`` keeps a job (Sidekiq's ``config.rb``, ``dead_timeout_in_seconds``).
DEAD_TIMEOUT = 180 * 86_400


def barrier_ttl(node: Wire | None, stack: tuple[Callback, ...], now: float | None = None) -> int:
    """How long barriers must live: all delays ahead, and the retries of one job.

    Parameters:
      node: A tree that is about to start.
      stack: The callbacks that are due after it.
      now: Epoch seconds; the clock's unless given.
    """
    now = time.time() if now is None else now
    ahead = delay_ahead(stack, now)
    if node is not None:
        ahead += total_delay(node) + wait_until(latest_start(node), now)
    return int(min(RETRY_HORIZON + ahead / 1000 + 1, MAX_TTL))


def stack_ttl(payload: Payload) -> int:
    """As :func:`barrier_ttl` of a job's callback stack; does not walk trees that hold no delay."""
    return barrier_ttl(None, payload.stack) if payload.may_delay else RETRY_HORIZON + 1


def chain_ttl(delay: float) -> int:
    """How long a stored chain must live.

    Parameters:
      delay: The sum of its delays, in milliseconds.
    """
    return RETRY_HORIZON + int(delay / 1000) + 1
