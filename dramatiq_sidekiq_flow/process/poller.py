"""Promotes due jobs of ``schedule`` and ``retry``, as Sidekiq's poller does.

Unlike Sidekiq's (pop, then push), a member goes from the set to its queue in
one script.  It promotes for every queue, Ruby's as well.  The clock of Redis
decides what is due; between two looks the thread waits by the monotonic clock.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import attrs
from dramatiq.logging import get_logger

from ..errors import FlowError, InvalidPayload, PayloadError, WrongType
from ..store import keys, sets
from ..store.connection import LOST, Connection
from ..wire import codec
from ..wire.payload import DEFAULTS, buried, fingerprint
from .availability import Availability
from .events import Buried, Events
from .loop import Loop

BATCH = 100

#: Seconds until the same problem is logged again.
QUIET = 60.0

#: Seconds between two looks at least.
SHORTEST = 0.001


@attrs.define
class _Look:
    """The result of one look at the sets."""

    moved: int = 0
    #: Set -> members that are due and stay.
    stayed: Counter[str] = attrs.field(factory=Counter)
    #: Set -> members that could not be read, and one of them.
    bad: Counter[str] = attrs.field(factory=Counter)
    example: dict[str, bytes] = attrs.field(factory=dict)
    #: Seconds until the next member is due.
    wait: float | None = None


class Poller:
    """One thread that promotes due jobs.

    Parameters:
      interval: Seconds between two looks, on average; it looks earlier when
        it knows of a job that is due earlier.
    """

    def __init__(
        self,
        connection: Connection,
        interval: float,
        *,
        availability: Availability | None = None,
        events: Events | None = None,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.availability = availability or Availability()
        self.connection = connection
        self.interval = interval
        self.events = events or Events()
        self._logged: dict[str, float] = {}
        self._loop = Loop("sidekiq-poller", interval=self._spread, work=self._work, at_once=True)

    def start(self) -> None:
        """Start the thread, unless it runs."""
        self._loop.start()

    def stop(self) -> None:
        """Stop the thread, and wait for it."""
        self._loop.stop()

    def forget(self) -> None:
        """In a forked child: begin without the parent's thread."""
        self._loop.forget()

    def nudge(self, delay: float) -> None:
        """Look in ``delay`` seconds, not later: this process has scheduled a job that is due then."""
        self._loop.hurry(delay)

    def poll(self) -> int:
        """Promote all due jobs now; returns how many."""
        return self._look().moved

    def _look(self) -> _Look:
        look = _Look()
        more = True
        while more and not self._loop.stopping:
            more = self._promote_batch(look)
        for name, count in look.bad.items():
            self.logger.error(
                "%d members of %r cannot be read and are now in 'dead'. One of them: %.200r",
                count,
                name,
                look.example[name],
            )
        return look

    def _promote_batch(self, look: _Look) -> bool:
        """Promote due members of each set, a batch at most; whether there were any."""
        found = sets.due(self.connection, BATCH, look.stayed)
        waits = [due.wait for due in found.values() if due.wait is not None]
        look.wait = min(waits, default=None)
        for name, due in found.items():
            if due.wrong_type:
                self._log(name, f"The Redis key {name!r} holds a {due.wrong_type}, not a sorted set. Remove it.")
            elif due.members:
                self._promote(name, due.members, look)
        # Redis tells when the next member is due only if none is due now, so look once more.
        return any(due.members for due in found.values())

    def _promote(self, name: str, members: list[bytes], look: _Look) -> None:
        now = time.time()
        promotions = [promotion(member, now) for member in members]
        result = sets.promote(self.connection, name, now, promotions)
        look.moved += result.moved
        stuck = {index: promotions[index] for index in result.stuck}
        if result.misplaced:
            misplaced = {index: _misplaced(promotions[index], now) for index in result.misplaced}
            stuck.update(self._bury_misplaced(name, misplaced, look, now))
        if stuck:
            look.stayed[name] += len(stuck)
            self._log_stuck(name, list(stuck.values()))
        self._note_bad(name, [p for index, p in enumerate(promotions) if index not in stuck], look)

    def _bury_misplaced(
        self, name: str, misplaced: dict[int, sets.Promotion], look: _Look, now: float
    ) -> dict[int, sets.Promotion]:
        """Move members whose queue is not a list to ``dead``; those of them that stay."""
        result = sets.promote(self.connection, name, now, list(misplaced.values()))
        look.moved += result.moved
        indices = list(misplaced)
        stuck = [indices[position] for position in result.stuck]
        return {index: misplaced[index] for index in stuck}

    def _log_stuck(self, name: str, stuck: list[sets.Promotion]) -> None:
        example = stuck[0]
        key = keys.QUEUES if example.queue else keys.DEAD
        self._log(
            f"{name}:{key}",
            f"{len(stuck)} due members of {name!r} stay where they are: the Redis key {key!r} is of another type. "
            f"Remove it. One of them: {example.member[:200]!r}",
        )

    def _note_bad(self, name: str, moved: list[sets.Promotion], look: _Look) -> None:
        """Note the members that could not be read, and are in ``dead`` now."""
        bad = [promotion.member for promotion in moved if promotion.queue is None]
        if bad:
            look.bad[name] += len(bad)
            look.example.setdefault(name, bad[0])
        for _ in bad:
            self.events.emit(Buried(name))

    def _log(self, what: str, text: str) -> None:
        """Log a lasting problem, at most once a minute."""
        now = time.monotonic()
        if now - self._logged.get(what, float("-inf")) >= QUIET:
            self._logged[what] = now
            self.logger.error("%s", text)

    def _spread(self) -> float:
        # Half to one and a half intervals: many processes spread out.
        return self.interval * random.uniform(0.5, 1.5)  # noqa: S311

    def _work(self) -> None:
        try:
            wait = self._look().wait
            if wait is not None:
                self._loop.hurry(max(wait, SHORTEST))
        except LOST as e:
            self.availability.lost(e)
        except Exception as e:
            self._log("error", f"Due jobs could not be promoted, which is tried again: {e}")


def promotion(member: bytes, now: float) -> sets.Promotion:
    """Decide where a due member goes (``client.rb``: ``normalize_item``, ``atomic_push``)."""
    try:
        return _promotion(member, now)
    except PayloadError as e:
        error: FlowError = e
    except Exception as e:
        error = InvalidPayload(f"The job cannot be pushed: {e}", member)
    return sets.Promotion(member, None, buried(member, error, now=now, queue=str(DEFAULTS["queue"])))


def _promotion(member: bytes, now: float) -> sets.Promotion:
    fields = codec.decode(member)
    if type(fields.get("class")) is not str or type(fields.get("args")) is not list:
        raise InvalidPayload("A job needs a class and an array of args.", member)
    fields = _with_defaults(fields)
    queue = fields["queue"] = _queue_name(fields["queue"], member)
    fields.setdefault("jid", fingerprint(member))
    fields.setdefault("created_at", now)
    fields["enqueued_at"] = now
    return sets.Promotion(member, queue, codec.encode(fields))


def _with_defaults(fields: dict[str, Any]) -> dict[str, Any]:
    """A due job with Sidekiq's defaults, and without the time at which it was due."""
    given = {name: value for name, value in fields.items() if value is not None or name != "queue"}
    given.pop("at", None)
    return {**DEFAULTS, **given}


def _queue_name(value: Any, member: bytes) -> str:
    if isinstance(value, (list, dict)):
        raise InvalidPayload("The queue of a job must be a string.", member)
    return str(value or DEFAULTS["queue"])


def _misplaced(p: sets.Promotion, now: float) -> sets.Promotion:
    error = WrongType(
        f"The Redis key {keys.queue(p.queue or '')!r} is not a list, so the job cannot go there.", p.queue
    )
    return sets.Promotion(p.member, None, buried(p.payload, error, now=now, queue=p.queue or ""))
