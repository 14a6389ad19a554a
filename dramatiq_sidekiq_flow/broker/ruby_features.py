"""Features of a payload that Ruby's middleware implements, in a Python worker.

* ``expiry`` (Sidekiq Pro's ``expires_in``) is obeyed: an expired job does not run.
* ``bid`` (Sidekiq Pro's batches) and the locks of unique jobs (Sidekiq
  Enterprise, sidekiq-unique-jobs) need code that exists in Ruby only.  The job
  runs, and a warning names the consequence.
* ``encrypt`` is refused when the payload is decoded (``wire.payload``).
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from dramatiq.logging import get_logger
from dramatiq.middleware import SkipMessage

from ..errors import JobExpired, shortened
from ..wire.payload import Payload
from ..wire.payload_fields import expiry
from .retries import killed

if TYPE_CHECKING:
    from .message import SidekiqMessage

_logger = get_logger(__name__)

_BATCH = "bid"

#: Keys of unique jobs, the most significant first.
_LOCKS = ("unique_for", "unique_token", "unique_digest", "lock", "lock_digest", "unlock", "unique_until", "lock_ttl")

#: A job without any of these keys has none of the features.
KEYS = frozenset((_BATCH, "expiry", *_LOCKS))

#: ``(actor, feature)`` of the warnings so far.  Names come from payloads, so their number is limited.
_warned: set[tuple[str, str]] = set()
_MOST_WARNINGS = 1000


def before_process(message: SidekiqMessage) -> None:
    """Check a message that is about to be processed.

    Raises:
      SkipMessage: if it has expired; a step of a run is then moved to ``dead``.
    """
    payload = message.payload
    try:
        check(payload)
    except JobExpired as e:
        _logger.error("Job %s of %s is now in 'dead': %s", payload.jid, payload.actor_name, e)
        message.failure = killed(payload, message.queue_name, e)
        message.stuff_exception(e)
        message.fail()
        raise SkipMessage(e.message) from None


def check(payload: Payload) -> None:
    """Warn of features that Python does not implement, and check that the job has not expired.

    Raises:
      JobExpired: if a step of a run has expired, since its run waits for it.
      SkipMessage: if any other job has expired; it counts as done, as in Ruby.
    """
    _warn_of_ruby_only(payload)
    limit = expiry(payload.fields)
    if limit is not None and time.time() > limit:
        _expire(payload, limit)


def _warn_of_ruby_only(payload: Payload) -> None:
    """Warn of features that only Ruby workers have: batches, and locks of unique jobs."""
    fields = payload.fields
    if fields.get(_BATCH):
        _warn(payload, _BATCH, _BATCH_WARNING, shortened(fields[_BATCH]))
    lock = next((key for key in _LOCKS if fields.get(key)), None)
    if lock is not None:
        _warn(payload, "lock", _LOCK_WARNING, lock)


def _expire(payload: Payload, limit: float) -> NoReturn:
    """Raise the error of a job that expired at ``limit``, epoch seconds."""
    if payload.run_id is not None or payload.stack:
        raise JobExpired(
            f"The step expired at {_moment(limit)} (its 'expiry'), so it did not run, and its run waits. "
            "Start the run again, or push this job without 'expiry'.",
            limit,
        )
    _logger.warning(
        "Job %s of %s expired at %s (its 'expiry'), so it is dropped and does not run.",
        payload.jid,
        payload.actor_name,
        _moment(limit),
    )
    raise SkipMessage(f"Job {payload.jid} has expired.")


_BATCH_WARNING = (
    "Jobs of %s belong to a batch of Sidekiq Pro (bid %s). They run here, but only Ruby workers report to the batch, "
    "so it stays pending and its callbacks do not run. Let Ruby workers run the jobs of a batch, or use a workflow's "
    "Group."
)
_LOCK_WARNING = (
    "Jobs of %s hold a lock of a unique job (%s). They run here, but only Ruby workers release the lock, so an equal "
    "job is refused until the lock expires. Let Ruby workers run them, or push them without the lock."
)


def _warn(payload: Payload, feature: str, text: str, detail: Any) -> None:
    if (payload.actor_name, feature) not in _warned and len(_warned) < _MOST_WARNINGS:
        _warned.add((payload.actor_name, feature))
        _logger.warning(text, payload.actor_name, detail)


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f}"
