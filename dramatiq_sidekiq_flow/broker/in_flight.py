"""The jobs of one queue that this process holds in flight."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from ..store import workers
from ..store.connection import Caller
from ..store.keys import NOT_BEGUN, SUSPECT, parse_receipt
from .dramatiq_internals import explicit_prefetch

#: Most jobs that one process holds in flight per queue.
MAX_WINDOW = 512

#: It holds as many as it finishes within this time, in seconds: many when
#: jobs are short (round trips are shared), few when they are long (other
#: processes get their share).  Half of it must be enough for a fetch, whose
#: thread waits for the interpreter up to 5 ms at a time.
WINDOW_TIME = 0.04

#: Seconds over which it is measured how many jobs finish.
MEASURED = 0.02

#: With more jobs than this in the process, others finish soon.
BUSY = 16

#: Idle threads are given to one fetch at a time.
_reserving = threading.Lock()

#: Numbers all fetches of the process: a thread that
#: outlives a shutdown must never acknowledge a job of a later fetch.
_fetches = itertools.count(1)


def reserve(held: InFlight, all_held: Iterable[InFlight], threads: int, count: int) -> int:
    """Reserve idle threads for the next fetch of a queue; the number of its jobs that begin at once.

    They stay reserved for that fetch until the caller sets ``held.reserved`` to 0.

    Parameters:
      all_held: Those of all queues of the process.
      threads: How many worker threads it has.
      count: How many jobs are fetched.
    """
    with _reserving:
        held.reserved = 0
        taken = sum(other.held + other.reserved for other in list(all_held))
        held.reserved = max(0, min(count, threads - taken))
        return held.reserved


class InFlight:
    """The jobs of one queue that this process holds in flight.

    It outlives a consumer: when Dramatiq restarts one after a connection
    error, the fetched jobs are still here.
    """

    def __init__(self, queue_name: str, member: str) -> None:
        self.queue_name = queue_name
        self.member = member
        #: Called when a suspect that was tried here has left; set by the heartbeat.
        self.trial_ended: Callable[[], None] = lambda: None
        #: Called when a job came without a fetch, to wake a sleeping consumer.
        self.arrived: Callable[[], None] = lambda: None
        self.prefetch = 0
        self.fetched: deque[tuple[str, bytes]] = deque()
        self.handed_out: dict[str, None] = {}
        #: Receipts that threads offer for the next job of a chain.
        self.offered: dict[str, None] = {}
        self.queue_empty = False
        #: The member was in ``swf:workers`` when jobs were last fetched.
        self.registered = False
        #: Paused, or not a list: queues of lower priority do not wait for it.
        self.unavailable = False
        #: Idle threads that are reserved for the jobs being fetched.
        self.reserved = 0
        self._base: str | None = None
        self._trial_base: str | None = None
        self._trial = ""
        self._slot_free = threading.Event()
        self._waiting_for_slot = False
        self._size = 0
        self._settled = 0
        self._burst = False
        self._since = time.monotonic()

    def allow(self, prefetch: int) -> None:
        """Hold at least so many jobs."""
        if prefetch != self.prefetch:
            self.prefetch = self._size = prefetch

    @property
    def held(self) -> int:
        """Number of jobs."""
        return len(self.fetched) + len(self.handed_out)

    @property
    def under_load(self) -> bool:
        """True if jobs are short, and more of them are about to finish."""
        return self._size > self.prefetch and len(self.fetched) + len(self.handed_out) > BUSY

    def burst(self) -> bool:
        """Return True if jobs end faster than each could be marked as begun."""
        elapsed = time.monotonic() - self._since
        if elapsed < MEASURED:
            return self._burst
        # More than all threads could do if a job took as long as a round trip.
        return self.prefetch > 1 and self._settled / elapsed * MEASURED > self.prefetch

    def free_slots(self) -> int:
        """Number of jobs to fetch now; 0 until half of the slots are free."""
        held = self.held
        return self._size - held if held <= self._size // 2 else 0

    @property
    def may_bring_jobs(self) -> bool:
        """True if a fetch could bring jobs now."""
        return not self.queue_empty and not self.unavailable and self.free_slots() > 0

    def wait_for_slot(self, seconds: float) -> None:
        """Wait until half of the slots are free."""
        self._slot_free.clear()
        self._waiting_for_slot = True
        if not self.free_slots():
            self._slot_free.wait(seconds)
        self._waiting_for_slot = False

    def next_base(self) -> str:
        """The receipt base of the next fetch: the same again until it was answered."""
        if self._base is None:
            self._base = format(next(_fetches), "x")
        return self._base

    def add(self, jobs: list[tuple[str, bytes]]) -> None:
        """Add the jobs of a fetch."""
        self.fetched.extend(jobs)
        # Only now: a job in flight is either expected or held.
        self._base = None
        self._resize()

    def take(self) -> tuple[str, bytes]:
        """Take the next job that was fetched; it is held at each instant."""
        receipt, payload = self.fetched[0]
        self.handed_out[receipt] = None
        self.fetched.popleft()
        return receipt, payload

    def put_back(self, receipt: str, payload: bytes) -> None:
        """Undo :meth:`take`."""
        self.fetched.appendleft((receipt, payload))
        self.handed_out.pop(receipt, None)

    def offer(self) -> str:
        """Make the receipt of a job that a thread takes without a fetch; it ends with :meth:`end_offer`."""
        receipt = f"{next(_fetches):x}:1"
        self.offered[receipt] = None
        return receipt

    def take_offered(self, receipt: str) -> None:
        """Note that a job was taken under an offered receipt, and is handed out."""
        self.handed_out[receipt] = None

    def end_offer(self, receipt: str) -> None:
        """End an offer.  A job that was taken under it, and not handed out, goes back with the next heartbeat."""
        self.offered.pop(receipt, None)

    def trial_base(self) -> str:
        """The receipt base of the next trial: the same again until it was answered."""
        if self._trial_base is None:
            self._trial_base = format(next(_fetches), "x")
        return self._trial_base

    def add_trial(self, payload: bytes) -> None:
        """Add a suspect that was taken from a dead worker, to run alone."""
        self._trial = f"{self.trial_base()}:1"
        self.fetched.append((f"{self._trial}{NOT_BEGUN}", payload))
        self._trial_base = None
        self.arrived()

    def end_trial(self) -> None:
        """Note that there is nothing to try."""
        self._trial_base = None

    def begin(self, connection: Caller, receipt: str) -> str | None:
        """Mark a job that was fetched ahead as begun.  Safe to call twice.

        Returns:
          Its new receipt; None if the job has left flight here, and must not run.
        """
        begun = receipt.removesuffix(NOT_BEGUN)
        if not workers.begin(connection, self.member, begun + NOT_BEGUN):
            return None
        self.handed_out[begun] = None
        self.handed_out.pop(begun + NOT_BEGUN, None)
        return begun

    def unknown(self, receipts: Iterable[bytes], waiting: Iterable[str]) -> set[bytes]:
        """Select the receipts that are unknown to all threads of this process.

        A suspect counts as unknown: it was marked while this process was taken for
        dead, and only the suspects of dead workers are tried.

        Parameters:
          waiting: Receipts whose acknowledgement waits to be sent.
        """
        known = self._known(waiting)
        expected = {self._base, self._trial_base} - {None}
        found = set()
        for raw in receipts:
            base, index, state = parse_receipt(raw.decode("utf-8", "surrogateescape"))
            if state == SUSPECT or ((base, index) not in known and base not in expected):
                found.add(raw)
        return found

    def _known(self, waiting: Iterable[str]) -> set[tuple[str, int]]:
        """Base and number of the receipts that this process holds, or waits to acknowledge."""
        fetched = [receipt for receipt, _ in list(self.fetched)]
        offered = list(self.offered)
        return {parse_receipt(receipt)[:2] for receipt in (*fetched, *offered, *list(self.handed_out), *waiting)}

    def discard(self, receipt: str) -> None:
        """Forget a job that has left flight.

        Every thread calls it for every job, so it takes no lock: each operation
        is atomic, except the count, which may be a little low.
        """
        self.handed_out.pop(receipt, None)
        if self._trial and receipt.startswith(self._trial):
            self._trial = ""
            self.trial_ended()
        self._settled += 1
        if self._waiting_for_slot and self.held <= self._size // 2:
            # Once: the consumer may need a while to wake up, and each call takes a lock.
            self._waiting_for_slot = False
            self._slot_free.set()

    def _resize(self) -> None:
        now = time.monotonic()
        elapsed = now - self._since
        # Respect an explicit prefetch: 1, or QUEUE_PREFETCH from the environment.
        if elapsed < MEASURED or self.prefetch == 1 or explicit_prefetch():
            return
        self._burst = self.burst()
        rate, self._settled, self._since = self._settled / elapsed, 0, now
        wanted = max(self.prefetch, min(MAX_WINDOW, int(rate * WINDOW_TIME)))
        self._size = (self._size + wanted + 1) // 2
