"""What becomes of a job that failed: Sidekiq's rules, one decision.

``job_retry.rb`` says when a job is tried again, when it is dead and what its
payload then holds.  The decision is made here, once, when the actor has
raised; the consumer writes it in one step when Dramatiq acknowledges.
"""

from __future__ import annotations

import random
import time
import traceback
from typing import TYPE_CHECKING, Any

import attrs
import dramatiq
from dramatiq.common import compute_backoff
from dramatiq.middleware.retries import DEFAULT_MAX_BACKOFF, DEFAULT_MIN_BACKOFF
from dramatiq.middleware.retries import Retries as DramatiqRetries

from ..wire import codec, payload
from ..wire.payload import DEFAULT_RETRIES, Payload, seconds

if TYPE_CHECKING:
    from dramatiq.broker import Broker


@attrs.frozen
class Failure:
    """A decision.

    Attributes:
      action: ``retry``, ``dead`` or ``discard`` (``retry: false``, or dead
        with ``dead: false``).
      payload: The job with what Sidekiq notes of the failure.
      at: When to try again, epoch seconds.
    """

    action: str
    payload: bytes
    at: float = 0.0


class Retries(DramatiqRetries):
    """Dramatiq's Retries with Sidekiq's rules; SidekiqBroker puts it in its place.

    A job's own ``retry`` decides (``max_retries`` is the same by Dramatiq's
    name).  The wait is Sidekiq's, ``count ** 4 + 15`` seconds and jitter,
    unless ``min_backoff`` or ``max_backoff`` is set, here or on the actor.
    ``retry_when``, ``throws`` and ``on_retry_exhausted`` work as they do there.

    Parameters:
      max_retries: For jobs that arrive without ``retry``; Sidekiq's 25.
      min_backoff, max_backoff: Milliseconds.
      retry_when: ``(retries, exception) -> bool``; decides instead of ``retry``.
    """

    def __init__(
        self,
        *,
        max_retries: int = DEFAULT_RETRIES,
        min_backoff: int | None = None,
        max_backoff: int | None = None,
        retry_when: Any = None,
    ) -> None:
        super().__init__(
            max_retries=max_retries, min_backoff=min_backoff, max_backoff=max_backoff, retry_when=retry_when
        )
        self.own_backoff = bool(min_backoff or max_backoff)

    @classmethod
    def taking_over(cls, other: DramatiqRetries) -> Retries:
        """Ours, with the settings of Dramatiq's."""
        defaults = DramatiqRetries()
        mine = cls(
            max_retries=DEFAULT_RETRIES if other.max_retries == defaults.max_retries else other.max_retries,
            retry_when=other.retry_when,
        )
        mine.min_backoff, mine.max_backoff = other.min_backoff, other.max_backoff
        mine.own_backoff = (other.min_backoff, other.max_backoff) != (defaults.min_backoff, defaults.max_backoff)
        return mine

    @property
    def actor_options(self) -> set[str]:
        own: set[str] = super().actor_options
        return own | {"retry", "dead", "backtrace", "tags", "retry_for", "retry_queue"}

    def after_process_message(
        self, broker: Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if exception is None:
            return
        failure = decide(message.payload, message.queue_name, exception, broker.actors.get(message.actor_name), self)
        message.failure = failure
        if failure.action == "retry":
            self.logger.info("Retrying message %r in %.1f seconds.", message.message_id, failure.at - time.time())
            return
        message.fail()
        self.logger.warning("Message %r is %s.", message.message_id, _PAST[failure.action])
        actor = broker.actors.get(message.actor_name)
        target = message.options.get("on_retry_exhausted") or (actor and actor.options.get("on_retry_exhausted"))
        if target:
            retries = message.payload.retries
            broker.get_actor(target).send(
                message.asdict(), {"retries": retries, "max_retries": _tries(message.payload.fields, actor, self)}
            )


_PAST = {"dead": "dead: no retries are left", "discard": "discarded: its retry or dead option says so"}


def decide(
    job: Payload,
    queue: str,
    exception: BaseException,
    actor: dramatiq.Actor[Any, Any] | None,
    settings: Retries,
) -> Failure:
    """Decide what becomes of a job whose actor raised.

    Parameters:
      queue: Where the job came from.
      actor: None where no actor has the job's name (tried again like any
        failure: the process that knows it may be on its way).
    """
    now = time.time()
    options: dict[str, Any] = actor.options if actor else {}
    tries = _tries(job.fields, actor, settings)
    fields = payload.failed(job.fields, exception, now=now, queue=queue, backtrace=lines(exception))
    count = fields["retry_count"]
    if tries is False:
        return Failure("discard", b"")
    throws = options.get("throws")
    retry_when = options.get("retry_when", settings.retry_when)
    if throws and isinstance(exception, throws):
        again = False
    elif retry_when is not None:
        again = bool(retry_when(count, exception))
    else:
        again = count < (DEFAULT_RETRIES if tries is True else tries)
    retry_for = payload.retry_for(job.fields)
    if again and retry_for is not None:
        again = (seconds(fields.get("failed_at")) or now) + retry_for >= now
    if not again:
        return bury(fields)
    return Failure("retry", codec.encode(fields), now + _delay(count, exception, options, settings))


def bury(fields: dict[str, Any]) -> Failure:
    """Dead, or discarded where ``dead`` is false."""
    if fields.get("dead") is False:
        return Failure("discard", b"")
    return Failure("dead", codec.encode(fields))


def killed(job: Payload, queue: str, exception: BaseException) -> Failure:
    """Dead at once, whatever ``retry`` says: trying again could not help."""
    fields = payload.failed(job.fields, exception, now=time.time(), queue=queue, backtrace=lines(exception))
    return Failure("dead", codec.encode(fields))


def lines(exception: BaseException) -> list[str]:
    """A traceback as Ruby writes one: innermost first, ``file:line:in 'name'``."""
    frames = traceback.extract_tb(exception.__traceback__)
    return [f"{f.filename}:{f.lineno}:in '{f.name}'" for f in reversed(frames)]


def _tries(fields: dict[str, Any], actor: dramatiq.Actor[Any, Any] | None, settings: Retries) -> bool | int:
    retry = fields.get("retry")
    if retry is None and actor is not None:
        retry = actor.options.get("max_retries", actor.options.get("retry"))
    if retry is None:
        return settings.max_retries
    return retry if isinstance(retry, int) else True


def _delay(count: int, exception: BaseException, options: dict[str, Any], settings: Retries) -> float:
    if isinstance(exception, dramatiq.errors.Retry) and exception.delay is not None:
        return exception.delay / 1000
    if settings.own_backoff or "min_backoff" in options or "max_backoff" in options:
        least = options.get("min_backoff") or settings.min_backoff or DEFAULT_MIN_BACKOFF
        most = min(options.get("max_backoff") or settings.max_backoff, DEFAULT_MAX_BACKOFF)
        return compute_backoff(count, factor=least, max_backoff=most)[1] / 1000
    jitter: int = random.randrange(10)  # noqa: S311
    return float(count**4 + 15 + jitter * (count + 1))
