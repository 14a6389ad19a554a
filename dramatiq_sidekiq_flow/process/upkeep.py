"""Upkeep: what one process of the fleet, the keeper, does for all.

It looks at new members of ``dead``: a job that fails for good in Python extends
its barriers for as long as ``dead`` keeps the job, and its death is recorded.  A
job that plain Ruby buries, or that is killed in Sidekiq's Web UI, does not.  And
it does what is due by the clock.

The keeper holds a claim, which it renews.  Other processes ask for the claim once
a minute, and do nothing else.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Optional

import attrs
from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..errors import FlowError
from ..store import sets
from ..store.connection import FAULTS, LOST, Connection
from ..wire.payload import Payload
from .identity import Identity
from .log_limit import LogLimit
from .loop import Loop

#: Seconds between two requests for the claim.
INTERVAL = 60

#: Seconds between two looks of the keeper while there is something to keep, between two others, and seconds
#: that its claim lives.
BETWEEN, IDLE, CLAIM = 5.0, 15.0, 45

#: Seconds before the last score that are read again: scores come from the clocks of the processes that bury.
OVERLAP = 60.0

#: Jobs of one page, and pages of one look.
BATCH, PAGES = 50, 20

#: Part of each job that belongs to a run, or has a callback stack.
_MARKS = (b"_run_id", b"_completion_callbacks")


#: Handles a step in ``dead``; returns True if no other handler is to be called.
Handler = Callable[[Payload], Optional[bool]]


@attrs.frozen
class _Seen:
    """Position that one look reached in ``dead``: the last score, and True if it is the end of the set."""

    last: float
    reached_end: bool

    def next_start(self, start: float, now: float) -> float:
        """Compute the start score of the next look.

        Parameters:
          start: Start score of this look.
          now: Redis's time of this look.
        """
        if self.reached_end:
            # A score ahead of the clock must not hide those that come next.
            return max(start, min(self.last, now) - OVERLAP)
        return self.last if self.last > start else math.nextafter(self.last, math.inf)


class Upkeep:
    """The part of one process in the upkeep; without handlers and duties it has none.

    Attributes:
      handlers: Called for each step in ``dead``, also more than once, until one returns True;
        the payload is read without its callback stack.  An error is logged.
      duties: Called at each look of the keeper.  An error is logged.
      identity: Name of this process.
    """

    def __init__(self, connection: Connection) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.handlers: list[Handler] = []
        self.duties: list[Callable[[], None]] = []
        self.identity = Identity()
        self._limit = LogLimit()
        self._loop = Loop("sidekiq-keeper", interval=self._interval, work=self.work, at_once=True)
        self.forget()

    def forget(self) -> None:
        """In a forked child: begin without the parent's claim and thread."""
        self._next = 0.0
        self._is_keeper = self._has_found = False
        # What is due by the clock can wait: a fleet that starts has enough to do.
        self._duties_due = time.monotonic() + INTERVAL
        self._loop.forget()
        #: Members of ``dead`` that were handled, by score, as far as they are read again.
        self._handled: dict[bytes, float] = {}

    @property
    def stopping(self) -> bool:
        """True if the keeper's thread is to end."""
        return self._loop.stopping

    def look(self) -> None:
        """Become the keeper, if there is none; asks once a minute."""
        if self._is_keeper or time.monotonic() < self._next or not self._has_work:
            return
        self._next = time.monotonic() + INTERVAL
        if sets.claim_keeping(self.connection, self.identity.name, CLAIM):
            self._is_keeper = True
            self._loop.start()

    def _interval(self) -> float:
        return BETWEEN if self._has_found else IDLE

    @property
    def _has_work(self) -> bool:
        return bool(self.handlers or self.duties)

    def stop(self) -> None:
        """End the keeper's thread, and give the claim back."""
        self._loop.stop()
        if self._is_keeper:
            self._is_keeper = False
            self._next = 0.0
            with contextlib.suppress(ConnectionClosed, *FAULTS):
                sets.end_keeping(self.connection, self.identity.name)

    def work(self) -> None:
        """Do all of the keeper's work once, while this process has the claim."""
        self._guarded(self._keep)

    def _keep(self) -> None:
        found = sets.renew_keeping(self.connection, self.identity.name, CLAIM)
        self._is_keeper = found is not None
        if found is None:
            self._loop.stop()
            return
        self._has_found = bool(found.dead or found.runs)
        if found.dead:
            self._guarded(self._look_at_dead)
        if found.runs or found.dead or time.monotonic() >= self._duties_due:
            self._duties_due = time.monotonic() + INTERVAL
            for duty in self.duties:
                self._guarded(duty)

    def _guarded(self, task: Callable[[], None]) -> None:
        """Do a task; log its error."""
        try:
            task()
        except (ConnectionClosed, *LOST) as e:
            self.logger.debug("The keeper cannot reach Redis, and tries again: %s", e)
        except Exception as e:
            if self._limit.allows(f"keeper {e}"):
                self.logger.warning("A part of the upkeep of runs failed, and is tried again: %s", e)

    # -- dead jobs ----------------------------------------------------------------

    def _look_at_dead(self) -> None:
        """Handle new members of ``dead``."""
        start, now = sets.dead_position(self.connection)
        next_start = self._handle_since(start).next_start(start, now)
        if next_start != start:
            sets.keep_dead_position(self.connection, next_start)
        self._handled = {member: score for member, score in self._handled.items() if score >= next_start}

    def _handle_since(self, start: float) -> _Seen:
        """Handle the members of ``dead`` from a score on, at most PAGES pages of them."""
        last = start
        for page in range(PAGES):
            found = sets.dead_since(self.connection, start, page * BATCH, BATCH)
            for member, score in found:
                if self._handled.get(member) != score:
                    self.handle(member)
                    self._handled[member] = score
                last = score
            if len(found) < BATCH:
                return _Seen(last, reached_end=True)
        return _Seen(last, reached_end=False)

    def handle(self, member: bytes) -> None:
        """Call the handlers for a member of ``dead``, if it is a step that can be read.

        Raises:
          redis.ConnectionError, ServerUnavailable: if Redis cannot be reached.
        """
        if not any(mark in member for mark in _MARKS):
            return
        try:
            job = Payload.decode(member, lambda stored: None)
        except FlowError:
            return
        for handler in self.handlers:
            if self.call(handler, job):
                return

    def call(self, handler: Handler, job: Payload) -> bool:
        """Call a handler; an error is logged.  Return True if no other one is to be called.

        Raises:
          ConnectionClosed, redis.ConnectionError, ServerUnavailable: if Redis cannot be reached.
        """
        try:
            return handler(job) is True
        except (ConnectionClosed, *LOST):
            raise
        except FlowError as e:
            # It may be in `dead` because it cannot be read.
            self.logger.debug("The run of the dead job %s cannot be kept: %s", job.jid, e)
        except Exception as e:
            self.logger.warning("The run of the dead job %s could not be kept: %s", job.jid, e)
        return False
