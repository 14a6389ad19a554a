"""Delays of retries: Sidekiq's, unless others are set."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any, Protocol

import dramatiq
from dramatiq.common import compute_backoff
from dramatiq.logging import get_logger
from dramatiq.middleware.retries import DEFAULT_MAX_BACKOFF

from ..wire.lifetimes import MAX_TTL

_logger = get_logger(__name__)


class Settings(Protocol):
    """Limits of the delays, from the Retries middleware; see ``broker.retries``."""

    own_backoff: bool
    min_backoff: int
    max_backoff: int


def wait(
    count: int, exception: BaseException, own: Mapping[str, Any], options: Mapping[str, Any], settings: Settings
) -> float:
    """Compute the seconds until the next try.

    Parameters:
      count: Number of retries before.
      own: Options of the message; they override ``options``, those of its actor.
    """
    try:
        chosen = _chosen(count, exception, own, options, settings)
        if chosen is not None and not math.isfinite(chosen):
            raise ValueError(f"{chosen} s is not a time to wait")
    except Exception as e:
        _logger.error("The delay or backoff of a retry cannot be used, so Sidekiq's is: %s: %s", type(e).__name__, e)
        chosen = None
    if chosen is not None:
        return min(max(chosen, 0.0), MAX_TTL)
    jitter: int = random.randrange(10)  # noqa: S311
    return float(count**4 + 15 + jitter * (count + 1))


def _chosen(
    count: int, exception: BaseException, own: Mapping[str, Any], options: Mapping[str, Any], settings: Settings
) -> float | None:
    """Get the delay that ``Retry(delay=...)``, the options or the middleware set; None if none of them does."""
    if isinstance(exception, dramatiq.errors.Retry) and exception.delay is not None:
        return exception.delay / 1000
    least, most = _backoff("min_backoff", own, options), _backoff("max_backoff", own, options)
    if not settings.own_backoff and least is None and most is None:
        return None
    return _computed(count, least, most, settings)


def _computed(count: int, least: int | None, most: int | None, settings: Settings) -> float:
    """Compute Dramatiq's backoff in seconds; None stands for the middleware's limit."""
    least = settings.min_backoff if least is None else least
    most = min(settings.max_backoff if most is None else most, DEFAULT_MAX_BACKOFF)
    return compute_backoff(count, factor=least, max_backoff=most)[1] / 1000


def _backoff(name: str, own: Mapping[str, Any], options: Mapping[str, Any]) -> int | None:
    """Get an option of the message, else of its actor, else None."""
    value = own.get(name)
    return value if type(value) is int else options.get(name)
