"""Promotes what is due in ``schedule`` and ``retry``, as Sidekiq's poller does.

Unlike Sidekiq's (pop, then push), a member goes from the set to its queue in
one script.  It promotes for every queue, Ruby's as well.
"""

from __future__ import annotations

import random
import threading
import time

from dramatiq.logging import get_logger

from ..errors import InvalidPayload, PayloadError, WrongType
from ..store import keys, sets
from ..store.connection import Connection
from ..wire import codec
from ..wire.payload import DEFAULTS, buried, fingerprint
from .events import Buried, Events

BATCH = 100


class Poller:
    """One thread that promotes due jobs.

    Parameters:
      interval: Seconds between two looks, on average; it looks earlier when
        it knows of a job that is due earlier.
    """

    def __init__(self, connection: Connection, interval: float) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.interval = interval
        self.events = Events()
        self._stopped = False
        self._wake = threading.Event()
        self._next = 0.0
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
        self._thread = None

    def nudge(self, at: float) -> None:
        """This process has scheduled a job for ``at``: look then, not later."""
        if at < self._next:
            self._next = at
            self._wake.set()

    def poll(self) -> int:
        """Promote all that is due now; returns how many."""
        return sum(self._promote(name) for name in (keys.SCHEDULE, keys.RETRY))

    def _promote(self, name: str) -> int:
        total = 0
        while True:
            now = time.time()
            members = sets.due(self.connection, name, now, BATCH)
            if not members:
                return total
            promotions = [promotion(member, now) for member in members]
            moved, stuck = sets.promote(self.connection, name, now, promotions)
            if stuck:
                moved += sets.promote(self.connection, name, now, [_misplaced(promotions[i], now) for i in stuck])[0]
            total += moved
            for p in promotions:
                if p.queue is None:
                    self.logger.error("A member of %r cannot be read and is now in 'dead': %.200r", name, p.member)
                    self.events.tell(Buried(name))
            if len(members) < BATCH or self._stopped:
                return total

    def _run(self) -> None:
        while not self._stopped:
            # Half to one and a half intervals: many processes spread out.
            self._next = time.time() + self.interval * random.uniform(0.5, 1.5)  # noqa: S311
            self._wake.clear()
            try:
                due = sets.next_due(self.connection)
                if due is not None and due <= time.time():
                    self.poll()
                    due = sets.next_due(self.connection)
                if due is not None:
                    self._next = min(self._next, due)
            except Exception as e:
                self.logger.warning("Could not promote this time: %s", e)
            while not self._stopped and (left := self._next - time.time()) > 0:
                # Woken for an earlier job, it only waits for less.
                self._wake.wait(left)
                self._wake.clear()


def promotion(member: bytes, now: float) -> sets.Promotion:
    """What becomes of a due member (``client.rb``: ``normalize_item``, ``atomic_push``)."""
    try:
        fields = codec.decode(member)
        if type(fields.get("class")) is not str or type(fields.get("args")) is not list:
            raise InvalidPayload("A job needs a class and an array of args.", member)
    except PayloadError as e:
        return sets.Promotion(member, None, buried(member, e, now=now, queue=str(DEFAULTS["queue"])))
    fields = {**DEFAULTS, **{name: value for name, value in fields.items() if value is not None or name != "queue"}}
    fields.pop("at", None)
    queue = fields["queue"] = str(fields["queue"] or DEFAULTS["queue"])
    fields.setdefault("jid", fingerprint(member))
    fields.setdefault("created_at", now)
    fields["enqueued_at"] = now
    return sets.Promotion(member, queue, codec.encode(fields))


def _misplaced(p: sets.Promotion, now: float) -> sets.Promotion:
    error = WrongType(f"The Redis key {keys.queue(p.queue or '')!r} is no list, so the job cannot go there.", p.queue)
    return sets.Promotion(p.member, None, buried(p.payload, error, now=now, queue=p.queue or ""))
