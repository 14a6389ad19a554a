"""Steers runs while they are disturbed: pauses, resumes, cancels and retries them, and sends signals."""

from __future__ import annotations

import contextlib
import heapq
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from dramatiq_sidekiq_flow import Runs
from dramatiq_sidekiq_flow.errors import UnknownRun
from dramatiq_sidekiq_flow.runs import run_sweep

from .steps import Planting, signal_of

#: Seconds after which workers know that a run is paused or cancelled.
KNOWN = 1.0

#: Seconds between two tries after an error, and between two looks for failed runs.
AGAIN, RETRY = 0.3, 1.0

#: Of a hundred runs, how many are paused, and cancelled.
PAUSED, CANCELLED = 8, 4


@attrs.frozen
class Plan:
    """A run that was started.

    Attributes:
      count: Steps that run.
      planting: What its steps do.
    """

    run_id: str
    count: int
    planting: Planting


@attrs.frozen
class Window:
    """A time in which no step of a run may start."""

    run: int
    at: float
    until: float


class Steerer:
    """One thread.  An action that raises is done again.

    Attributes:
      plans: Run -> what is known of it.
      cancelled: Runs that were cancelled before they were done.
      forget: Called with a run that is cancelled.
      mark: Called with what is done, for those who read the record later.
    """

    def __init__(self, broker: Any, seed: int, forget: Callable[[int], None], mark: Callable[[str], None]) -> None:
        self.runs = Runs(broker)
        self.rng = random.Random(f"{seed} steering")
        self.forget = forget
        self.mark = mark
        self.plans: dict[int, Plan] = {}
        self.cancelled: set[int] = set()
        self.windows: list[Window] = []
        self.done: dict[str, int] = dict.fromkeys(("paused", "cancelled", "signalled", "retried", "raised"), 0)
        self.error: BaseException | None = None
        self._last_error: Exception | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="steerer", daemon=True)

    def start(self) -> None:
        """Begin."""
        # All Ruby processes have the companion: one that was killed is taken for one without it, and waited for.
        run_sweep.LONGEST_BEAT = 0.5
        self._thread.start()
        self._at(RETRY, self._retry)

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._thread.join(30)

    def add(self, run: int, plan: Plan) -> None:
        """Take a run that was started, and decide what is done to it."""
        self.plans[run] = plan
        what = self.rng.randrange(100)
        if what < PAUSED:
            self._at(self.rng.uniform(0.0, 2.0), lambda: self._pause(run))
        elif what < PAUSED + CANCELLED:
            self._at(self.rng.uniform(0.0, 2.0), lambda: self._cancel(run))
        for number in sorted(plan.planting.waits):
            self._at(self.rng.uniform(0.0, 3.0), partial(self._signal, run, number))

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be done, but to look for failed runs."""
        with self._lock:
            return len(self._due) + self._busy <= 1

    def check(self) -> None:
        """Raise what has ended it."""
        if self.error is not None:
            raise RuntimeError(f"a run could not be steered: {self._last_error}") from self.error

    def _at(self, seconds: float, act: Callable[[], None]) -> None:
        with self._lock:
            self._count += 1
            heapq.heappush(self._due, (time.monotonic() + seconds, self._count, act))

    def _run(self) -> None:
        try:
            while not self._stopped.wait(0.01):
                self._next()
        except BaseException as e:
            self.error = e

    def _next(self) -> None:
        with self._lock:
            if not self._due or self._due[0][0] > time.monotonic():
                return
            act = heapq.heappop(self._due)[2]
            self._busy = True
        try:
            act()
        except Exception as e:
            # Redis is not there, or refuses.
            self._last_error = e
            self.done["raised"] += 1
            self._at(AGAIN, act)
        finally:
            self._busy = False

    # -- what is done -----------------------------------------------------------------

    def _pause(self, run: int) -> None:
        state = self.runs.pause(self.plans[run].run_id, "a soak").state
        began = time.monotonic() + KNOWN
        self.mark(f"run {run} is {state}")
        if state == "paused":
            self._at(self.rng.uniform(0.0, 3.0), lambda: self._resume(run, began))

    def _resume(self, run: int, since: float) -> None:
        # From the first try on, since the reply of a resume may be lost.
        if not any(window.run == run and window.at == since for window in self.windows):
            self.windows.append(Window(run, since, time.monotonic()))
            self.done["paused"] += 1
        self.mark(f"run {run} is resumed, {self.runs.resume(self.plans[run].run_id).state}")

    def _cancel(self, run: int) -> None:
        if self.runs.cancel(self.plans[run].run_id, "a soak").state == "cancelled":
            self.windows.append(Window(run, time.monotonic() + KNOWN, float("inf")))
            self.cancelled.add(run)
            self.mark(f"run {run} is cancelled")
            self.done["cancelled"] += 1
            self.forget(run)

    def _signal(self, run: int, number: int) -> None:
        if run not in self.cancelled:
            self.done["signalled"] += self.runs.signal(self.plans[run].run_id, signal_of(number), {"by": number})

    def _retry(self) -> None:
        """As a person does: the steps of failed runs are tried again."""
        with contextlib.suppress(UnknownRun):
            self.done["retried"] += len(self.runs.retry(state="failed"))
        self._at(RETRY, self._retry)
