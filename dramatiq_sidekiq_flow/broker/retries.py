"""Decides by Sidekiq's rules whether a failed job is retried, dead or discarded.

The rules, and the keys of the payload, are those of ``job_retry.rb``.  The
decision is made once, when the actor has raised; the consumer writes it in one
step when Dramatiq acknowledges.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import Any, Literal

import attrs
import dramatiq
from dramatiq.logging import get_logger
from dramatiq.middleware import Shutdown
from dramatiq.middleware.retries import Retries as DramatiqRetries

from ..wire import codec, payload, payload_fields
from ..wire.payload import DEFAULT_RETRIES, Payload
from ..wire.payload_fields import seconds
from . import backoff

_logger = get_logger(__name__)


@attrs.frozen
class Failure:
    """A decision.

    Attributes:
      action: ``retry``; ``dead``; ``discard`` (``retry: false``, or dead with
        ``dead: false``); ``requeue`` (a shutdown interrupted it: back into its
        queue as it was).
      payload: The job, with the keys that Sidekiq writes about a failure.
      at: When to try again, epoch seconds.
    """

    action: Literal["retry", "dead", "discard", "requeue"]
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
      min_backoff, max_backoff: Milliseconds; 0 does not wait.
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
        self.own_backoff = min_backoff is not None or max_backoff is not None
        # Dramatiq takes a 0 for its default.
        if min_backoff is not None:
            self.min_backoff = min_backoff
        if max_backoff is not None:
            self.max_backoff = max_backoff

    @classmethod
    def taking_over(cls, other: DramatiqRetries) -> Retries:
        """Make one with the settings of Dramatiq's middleware."""
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
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if exception is None:
            return
        actor = broker.actors.get(message.actor_name)
        failure = decide(
            message.payload,
            message.queue_name,
            exception,
            actor,
            self,
            own_options=message.options,
            stopping=broker.process.quiet,
        )
        message.failure = failure
        if failure.action == "requeue":
            self.logger.info(
                "Message %r was interrupted by the shutdown and goes back to its queue.", message.message_id
            )
            return
        if failure.action != "retry" and _is_expected(exception, actor):
            self.logger.info("Aborting message %r.", message.message_id)
            message.fail()
            return
        _note_failure(message)
        if failure.action == "retry":
            delay = max(failure.at - time.time(), 0.0)
            self.logger.info("Retrying message %r in %d milliseconds.", message.message_id, delay * 1000)
            return
        message.fail()
        self.logger.warning("Message %r is %s.", message.message_id, _PAST[failure.action])
        self._send_exhausted(broker, message, actor)

    def _send_exhausted(self, broker: Any, message: Any, actor: dramatiq.Actor[Any, Any] | None) -> None:
        """Send a message that is not retried to the actor that its ``on_retry_exhausted`` names, if it names one."""
        target = message.options.get("on_retry_exhausted") or (actor and actor.options.get("on_retry_exhausted"))
        if not target:
            return
        tries = _tries(message.payload.fields, actor, self)
        counts = {"retries": message.payload.retries, "max_retries": tries}
        broker.get_actor(target).send(message.asdict(), counts)


def _note_failure(message: Any) -> None:
    """Set the options that Dramatiq sets, for the hooks and callbacks that follow."""
    message.options["retries"] = message.payload.retries + 1
    message.options["traceback"] = traceback.format_exc(limit=30)
    message.options["requeue_timestamp"] = int(time.time() * 1000)


_PAST = {"dead": "dead: no retries are left", "discard": "discarded: its retry or dead option says so"}


def decide(
    job: Payload,
    queue: str,
    exception: BaseException,
    actor: dramatiq.Actor[Any, Any] | None,
    settings: Retries,
    *,
    own_options: Mapping[str, Any] | None = None,
    stopping: bool = False,
) -> Failure:
    """Decide whether a job whose actor raised is retried, dead or discarded.

    Parameters:
      queue: Where the job came from.
      actor: None if the job's class is unknown here; it is retried like any
        failure, since a deploy may bring the class.
      own_options: Options of the message, which come before its actor's.
      stopping: The process shuts down, so a Shutdown is its own and not the
        job's failure (``processor.rb``, ``Sidekiq::Shutdown``).
    """
    if stopping and isinstance(exception, Shutdown):
        return Failure("requeue", b"")
    now = time.time()
    options: dict[str, Any] = actor.options if actor else {}
    tries = _tries(job.fields, actor, settings)
    fields = payload.failed(job.fields, exception, now=now, queue=queue, backtrace=lines(exception))
    count = fields["retry_count"]
    if tries is False:
        return _discard(job, fields, "retry: false")
    if _is_expected(exception, actor):
        return bury(job, fields)
    retry_when = options.get("retry_when", settings.retry_when)
    if not _should_retry(retry_when, count, tries, exception) or _is_past_retry_for(job, fields, now):
        return bury(job, fields)
    wait = backoff.wait(count, exception, own_options or {}, options, settings)
    return Failure("retry", codec.encode(fields), now + wait)


def _should_retry(retry_when: Any, count: int, tries: int, exception: BaseException) -> bool:
    """Return True if ``retry_when``, or else the number of retries, allows another try.

    Parameters:
      count: How many retries there were.
      tries: How many there may be; True for Sidekiq's number.
    """
    asked = _asked(retry_when, count, exception)
    if asked is not None:
        return asked
    return count < (DEFAULT_RETRIES if tries is True else tries)


def _is_past_retry_for(job: Payload, fields: Mapping[str, Any], now: float) -> bool:
    """Return True if a job has been failing for longer than its ``retry_for``."""
    retry_for = payload_fields.retry_for(job.fields)
    if retry_for is None:
        return False
    return (seconds(fields.get("failed_at")) or now) + retry_for < now


def bury(job: Payload, fields: dict[str, Any]) -> Failure:
    """The failure of a job that is not retried: dead, or discarded if ``dead`` is false.

    Parameters:
      fields: The job, with the keys that Sidekiq writes about a failure.
    """
    if fields.get("dead") is False:
        return _discard(job, fields, "dead: false")
    return Failure("dead", codec.encode(fields))


def rejected(job: Payload, queue: str, exception: BaseException) -> Failure:
    """The failure of a job that was rejected: dead, or discarded if ``dead`` is false."""
    fields = payload.failed(job.fields, exception, now=time.time(), queue=queue, backtrace=lines(exception))
    return bury(job, fields)


def _discard(job: Payload, fields: dict[str, Any], option: str) -> Failure:
    """Discard a plain job, or a step that others replace; keep any other step in ``dead``: its run waits for it."""
    if not job.stack and (job.run_id is None or payload_fields.is_callback(job.fields)):
        return Failure("discard", b"")
    if payload_fields.DEATH_KEY in job.fields:
        # Others take its place; the record of its run keeps the error.
        return Failure("discard", codec.encode(fields))
    _logger.warning(
        "Step %s (%s) of run %s failed and has %s, but its run waits for it: it is in 'dead', and retrying it there "
        "resumes the run.",
        job.jid,
        job.actor_name,
        job.run_id,
        option,
    )
    return Failure("dead", codec.encode(fields))


def killed(job: Payload, queue: str, exception: BaseException) -> Failure:
    """The failure of a job that a retry cannot repair: dead at once, whatever its ``retry`` option."""
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


def _is_expected(exception: BaseException, actor: dramatiq.Actor[Any, Any] | None) -> bool:
    """Return True if the actor's ``throws`` option lists the exception."""
    throws: Any = actor.options.get("throws") if actor else None
    return bool(throws) and isinstance(exception, throws)


def _asked(retry_when: Any, count: int, exception: BaseException) -> bool | None:
    """The answer of ``retry_when``; None if it is not set, or fails (as Sidekiq treats ``sidekiq_retry_in``)."""
    if retry_when is None:
        return None
    try:
        return bool(retry_when(count, exception))
    except Exception:
        _logger.exception("retry_when failed, so Sidekiq's rule decides: the number of retries.")
        return None
