"""Lifetimes of the parts of a run in Redis, in seconds."""

from __future__ import annotations

import time

from .callbacks import Callback, any_delay, delay_ahead, wait_until
from .nodes import Wire
from .payload import Payload
from .tree_times import latest_start, total_delay

#: Sidekiq's 25 retries take about 21 days: a barrier outlives them.
RETRY_HORIZON = 21 * 86_400

#: A released barrier is kept for a day, as in the gem, in case a duplicate arrives late.
RELEASED_TTL = 86_400

#: TTL of a barrier that the plain gem makes (``barrier_ttl``).
GEM_BARRIER_TTL = 86_400

#: Maximum TTL: Redis refuses one whose end it cannot represent.
MAX_TTL = 1000 * 365 * 86_400

#: Time that ``dead`` keeps a job (Sidekiq's ``config.rb``, ``dead_timeout_in_seconds``).
DEAD_TIMEOUT = 180 * 86_400


def barrier_ttl(node: Wire | None, stack: tuple[Callback, ...], now: float | None = None) -> int:
    """Compute the TTL of barriers: all delays ahead, and the retries of one job.

    Parameters:
      node: A tree that is about to start.
      stack: The callbacks that are due after it.
      now: Epoch seconds; the current time by default.
    """
    now = time.time() if now is None else now
    ahead = delay_ahead(stack, now)
    if node is not None:
        ahead += total_delay(node) + wait_until(latest_start(node), now)
    return int(min(RETRY_HORIZON + ahead / 1000 + 1, MAX_TTL))


def stack_ttl(payload: Payload) -> int:
    """Compute the TTL of the barriers of a job's callback stack.  Trees that hold no delay are not walked."""
    if any_delay(payload.stack) and payload.may_delay:
        return barrier_ttl(None, payload.stack)
    return RETRY_HORIZON + 1


def chain_ttl(delay: float) -> int:
    """Compute the TTL of a stored chain.

    Parameters:
      delay: The sum of its delays, in milliseconds.
    """
    return RETRY_HORIZON + int(delay / 1000) + 1
