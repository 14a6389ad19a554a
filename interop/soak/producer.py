"""Starts random workflows, whatever happens to the server."""

from __future__ import annotations

import random
import threading
import time
from typing import Any
from uuid import uuid4

import dramatiq

from tests.trees import Shape, random_shape

from .judge import steps_of
from .record import Event, Record
from .settings import Settings
from .steerer import Plan, Steerer
from .steps import Planting
from .systems import System

#: Seconds between two tries to start a workflow.
AGAIN = 0.2


class Producer:
    """One thread, which keeps some runs under way.

    A start that raised is repeated with the same workflow, where the system
    allows it.  Where it does not, the run is not counted.
    """

    def __init__(self, system: System, broker: dramatiq.Broker, record: Record, settings: Settings) -> None:
        self.system, self.broker, self.record, self.settings = system, broker, record, settings
        self.rng = random.Random(f"{settings.seed} workflows")
        self.shapes: list[Shape] = []
        #: Run -> steps that have not ended, and when it was started.
        self.open: dict[int, tuple[set[int], float]] = {}
        #: Runs whose start raised and cannot be repeated.
        self.dropped: set[int] = set()
        self.refused = 0
        self.error: BaseException | None = None
        self.steerer = Steerer(broker, settings.seed, self.forget, record.mark) if system.steered else None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._last_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="producer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        if self.steerer:
            self.steerer.start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            while not self._stopped.wait(0.01):
                due = (time.monotonic() - began) * self.settings.rate
                if len(self.shapes) < due and self.under_way() < self.settings.at_once:
                    self._start_one()
        except BaseException as e:
            self.error = e

    def _start_one(self) -> None:
        shape, run = self._shape(), len(self.shapes)
        if self.steerer:
            self._start_steered(shape, run, self.steerer)
            return
        self._note_start(shape, run)
        workflow = self.system.workflow(self.broker, shape, run, self.rng, self.settings)
        while not self._started(workflow):
            if not self.system.repeatable:
                self.dropped.add(run)
                return
            time.sleep(AGAIN)

    def _note_start(self, shape: Shape, run: int) -> None:
        with self._lock:
            self.shapes.append(shape)
            self.open[run] = (set(range(steps_of(shape))), time.monotonic())

    def _start_steered(self, shape: Shape, run: int, steerer: Steerer) -> None:
        """Start a run with steps of all kinds, which is steered."""
        planting = Planting(run, self.rng, self.settings, self.system.steps)
        tree, ran = planting.tree(shape)
        self._note_start(ran, run)
        workflow = self.system.steered_workflow(self.broker, tree, run, self.rng)
        run_id = str(uuid4())
        while not self._started(workflow, run_id):
            time.sleep(AGAIN)
        steerer.add(run, Plan(run_id, steps_of(ran), planting))

    def forget(self, run: int) -> None:
        """A run that was cancelled is not under way."""
        with self._lock:
            self.open.pop(run, None)

    def _started(self, workflow: Any, *run_id: str) -> bool:
        try:
            workflow.run(*run_id)
        except Exception as e:
            self.refused += 1
            self._last_error = e
            return False
        return True

    def _shape(self) -> Shape:
        """A tree, seldom of less than three steps."""
        while True:
            shape = random_shape(self.rng, 5)
            if not self.system.empty_nodes and "[]" in str(shape):
                continue
            count = steps_of(shape)
            if 3 <= count <= 40 or (count > 0 and self.rng.random() < 0.05):
                return shape

    def note(self, events: list[Event]) -> None:
        """Take note of what has ended."""
        with self._lock:
            for event in events:
                if event.what == "end" and event.run in self.open:
                    left = self.open[event.run][0]
                    left.discard(event.step)
                    if not left:
                        del self.open[event.run]

    def under_way(self) -> int:
        """Runs that are not done, without those that take too long."""
        since = time.monotonic() - self.settings.overdue
        with self._lock:
            return sum(1 for _, started in self.open.values() if started > since)

    @property
    def finished(self) -> int:
        with self._lock:
            return len(self.shapes) - len(self.open)

    def stop(self) -> None:
        """Start nothing more.  What is being started, is started."""
        self._stopped.set()
        self._thread.join(60)
        if self._thread.is_alive():
            self.error = self.error or RuntimeError(f"a workflow cannot be started: {self._last_error}")
        self.check()

    def check(self) -> None:
        """Raise what has ended it."""
        if self.error is not None:
            raise RuntimeError("the producer has failed") from self.error
        if self.steerer:
            self.steerer.check()
