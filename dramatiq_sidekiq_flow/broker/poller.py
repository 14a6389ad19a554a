"""Promotes what is due in ``schedule`` and ``retry``, as Sidekiq's poller does.

Unlike Sidekiq's (pop, then push), a member goes from the set to its queue in
one script.  It promotes for every queue, Ruby's as well.  What is due is what
the clock of Redis says; between two looks it waits by a clock that nobody sets.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import attrs
from dramatiq.logging import get_logger

from ..errors import FlowError, InvalidPayload, PayloadError, WrongType
from ..store import keys, sets
from ..store.connection import LOST, Connection
from ..wire import codec
from ..wire.payload import DEFAULTS, buried, fingerprint
from .availability import Availability
from .events import Buried, Events

BATCH = 100

#: Seconds until the same trouble is logged again.
QUIET = 60.0

#: Seconds between two looks at least.
SHORTEST = 0.001


@attrs.define
class _Look:
    """What one look at the sets has come to."""

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

    def __init__(self, connection: Connection, interval: float, availability: Availability | None = None) -> None:
        self.logger = get_logger(__name__, type(self))
        self.availability = availability or Availability()
        self.connection = connection
        self.interval = interval
        self.events = Events()
        self._stopped = False
        self._wake = threading.Event()
        self._lock = threading.Lock()
        #: When to look next, by the monotonic clock.
        self._next = 0.0
        self._logged: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None or not self._thread.is_alive():
            self._stopped = False
            self._thread = threading.Thread(target=self._run, name="sidekiq-poller", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stopped = True
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def forget(self) -> None:
        """In a forked child: begin without the parent's thread."""
        self._thread, self._lock = None, threading.Lock()

    def nudge(self, delay: float) -> None:
        """This process has scheduled a job that is due in ``delay`` seconds: look then, not later."""
        at = time.monotonic() + delay
        with self._lock:
            if at >= self._next:
                return
            self._next = at
        self._wake.set()

    def poll(self) -> int:
        """Promote all that is due now; returns how many."""
        return self._look().moved

    def _look(self) -> _Look:
        look = _Look()
        more = True
        while more and not self._stopped:
            more = False
            found = sets.due(self.connection, BATCH, look.stayed)
            look.wait = min((due.wait for due in found.values() if due.wait is not None), default=None)
            for name, due in found.items():
                if due.wrong_type:
                    self._log(name, f"The Redis key {name!r} holds a {due.wrong_type}, not a sorted set. Remove it.")
                elif due.members:
                    # Once more in any case: what is due next is only said where nothing is due now.
                    more = True
                    self._promote(name, due.members, look)
        for name, count in look.bad.items():
            self.logger.error(
                "%d members of %r cannot be read and are now in 'dead'. One of them: %.200r",
                count,
                name,
                look.example[name],
            )
        return look

    def _promote(self, name: str, members: list[bytes], look: _Look) -> None:
        now = time.time()
        promotions = [promotion(member, now) for member in members]
        result = sets.promote(self.connection, name, now, promotions)
        stuck = {i: promotions[i] for i in result.stuck}
        look.moved += result.moved
        if result.misplaced:
            misplaced = [_misplaced(promotions[i], now) for i in result.misplaced]
            again = sets.promote(self.connection, name, now, misplaced)
            look.moved += again.moved
            stuck |= {result.misplaced[i]: misplaced[i] for i in again.stuck}
        if stuck:
            look.stayed[name] += len(stuck)
            example = next(iter(stuck.values()))
            key = keys.QUEUES if example.queue else keys.DEAD
            self._log(
                f"{name}:{key}",
                f"{len(stuck)} due members of {name!r} stay where they are: the Redis key {key!r} is of another type. "
                f"Remove it. One of them: {example.member[:200]!r}",
            )
        bad = [p for i, p in enumerate(promotions) if p.queue is None and i not in stuck]
        if bad:
            look.bad[name] += len(bad)
            look.example.setdefault(name, bad[0].member)
            for _ in bad:
                self.events.tell(Buried(name))

    def _log(self, what: str, text: str) -> None:
        """Log a trouble that lasts, once in a while."""
        now = time.monotonic()
        if now - self._logged.get(what, float("-inf")) >= QUIET:
            self._logged[what] = now
            self.logger.error("%s", text)

    def _run(self) -> None:
        while not self._stopped:
            # Half to one and a half intervals: many processes spread out.
            interval = self.interval * random.uniform(0.5, 1.5)  # noqa: S311
            with self._lock:
                self._next = time.monotonic() + interval
            self._wake.clear()
            try:
                wait = self._look().wait
                if wait is not None and wait < interval:
                    self.nudge(max(wait, SHORTEST))
            except LOST as e:
                self.availability.lost(e)
            except Exception as e:
                self._log("error", f"Could not promote this time: {e}")
            while not self._stopped and (left := self._next - time.monotonic()) > 0:
                # Woken for an earlier job, it only waits for less.
                self._wake.wait(left)
                self._wake.clear()


def promotion(member: bytes, now: float) -> sets.Promotion:
    """What becomes of a due member (``client.rb``: ``normalize_item``, ``atomic_push``)."""
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
    fields = {**DEFAULTS, **{name: value for name, value in fields.items() if value is not None or name != "queue"}}
    fields.pop("at", None)
    if isinstance(fields["queue"], (list, dict)):
        raise InvalidPayload("The queue of a job must be a string.", member)
    queue = fields["queue"] = str(fields["queue"] or DEFAULTS["queue"])
    fields.setdefault("jid", fingerprint(member))
    fields.setdefault("created_at", now)
    fields["enqueued_at"] = now
    return sets.Promotion(member, queue, codec.encode(fields))


def _misplaced(p: sets.Promotion, now: float) -> sets.Promotion:
    error = WrongType(
        f"The Redis key {keys.queue(p.queue or '')!r} is not a list, so the job cannot go there.", p.queue
    )
    return sets.Promotion(p.member, None, buried(p.payload, error, now=now, queue=p.queue or ""))
