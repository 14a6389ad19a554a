"""The worker processes of a column, each started again when it has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import attrs

from interop.tests.processes import ROOT, RUN

from .disturbances import Disturbance
from .record import Death, Pause, Record
from .settings import Settings
from .systems import PYTHON, System

#: Seconds for which a kill waits for a worker that executes something.
HIT = 0.6

#: Seconds from the start of a process until it counts as up, if it has not executed anything before.
BOOT = 4.0

#: Seconds until a worker that was sent TERM is killed.
TERM = 30.0

#: Seconds before a worker that ended by itself is started again.
AGAIN = 0.3


@attrs.define
class Slot:
    """A place for a worker."""

    language: str
    process: subprocess.Popen[bytes] | None = None
    #: Of the process, in the record.
    number: int = -1
    started: float = 0.0
    #: When it is started again, at the earliest.
    after: float = 0.0
    #: When it was asked to end, and how.
    asked: float | None = None
    how: str = "exit"
    #: Until when it stands still, and since when.
    paused: float | None = None
    since: float = 0.0


class Fleet:
    """All of them."""

    def __init__(self, system: System, settings: Settings, url: str, record: Record, logs: Path) -> None:
        self.system, self.settings, self.url, self.record, self.logs = system, settings, url, record, logs
        self.slots = [Slot(language) for language in system.languages(settings)]
        self.deaths: list[Death] = []
        self.pauses: list[Pause] = []
        self.done: Counter[str] = Counter()
        #: Lines for the output.
        self.notes: list[str] = []
        self._started = 0

    def tend(self) -> None:
        """Start what has ended, wake what has stood still for long enough, and see to it that TERM ends."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.process is None:
                if now >= slot.after:
                    self._start(slot)
                continue
            if slot.paused is not None and now >= slot.paused:
                self._wake(slot)
            if slot.how == "term" and slot.asked is not None and now > slot.asked + TERM:
                self.done["TERM not obeyed"] += 1
                self._signal(slot, signal.SIGKILL)
            if slot.process.poll() is not None:
                self._ended(slot)

    def _start(self, slot: Slot) -> None:
        self._started += 1
        slot.number, slot.started = self._started, time.monotonic()
        slot.asked, slot.how, slot.paused = None, "exit", None
        command, environment = self._python(slot) if slot.language == "python" else self._ruby(slot)
        with (self.logs / f"{slot.number:04}-{slot.language}.log").open("wb") as output:
            slot.process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=ROOT,
                stdin=self.record.file,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _python(self, slot: Slot) -> tuple[list[str], dict[str, str]]:
        settings = self.settings
        command = [sys.executable, "-m", "interop.soak.worker", self.system.name, self.url]
        command += ["--number", str(slot.number), "--threads", str(settings.threads)]
        command += ["--heartbeat", str(settings.heartbeat)]
        if settings.references is not None:
            command += ["--references", str(settings.references)]
        return command, {}

    def _ruby(self, slot: Slot) -> tuple[list[str], dict[str, str]]:
        settings = self.settings
        command = [str(RUN), "sidekiq", "-r", "./soak.rb", "-q", "ruby", "-q", "default", "-c", str(settings.threads)]
        # Docker's containers cannot be killed from outside.
        environment = {"REDIS_URL": self.url, "INTEROP_ENGINE": "chroot", "INTEROP_WORKER": str(slot.number)}
        environment |= {"INTEROP_POLL": "0.5", "INTEROP_TIMEOUT": "3"}
        # Its own record is in Redis, which is made to refuse it.
        environment |= {"INTEROP_QUIET": "1", "INTEROP_RECORD": "0"}
        if not self.system.companion:
            return command, {**environment, "INTEROP_PYTHON_CLASSES": PYTHON}
        environment["INTEROP_EXTRA"] = str(ROOT / "dramatiq_sidekiq_flow" / "ruby")
        environment["INTEROP_REQUIRE"] = "/interop/extra/sidekiq_flow_companion.rb"
        environment["INTEROP_HEARTBEAT"] = str(settings.heartbeat)
        if settings.references is not None:
            environment["INTEROP_REFERENCES"] = str(settings.references)
        return command, environment

    def _signal(self, slot: Slot, number: int) -> None:
        assert slot.process is not None
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(slot.process.pid, number)
            else:
                os.kill(slot.process.pid, number)

    def _ended(self, slot: Slot) -> None:
        assert slot.process is not None
        now = time.monotonic()
        self.deaths.append(Death(slot.number, slot.how, slot.asked or now, now))
        self.record.mark(f"ended, {slot.how} {slot.process.returncode}", slot.number)
        if slot.how == "exit":
            self.done["ended by itself"] += 1
            slot.after = now + AGAIN
        elif slot.how == "term" and slot.process.returncode not in (0, -signal.SIGTERM):
            self.done["TERM, exit code not 0"] += 1
        slot.process = None

    def _wake(self, slot: Slot) -> None:
        self._signal(slot, signal.SIGCONT)
        self.record.mark("goes on", slot.number)
        self.pauses.append(Pause(slot.number, slot.since, time.monotonic()))
        slot.paused = None

    # -- disturbances -----------------------------------------------------------------

    def disturb(self, disturbance: Disturbance) -> bool:
        """Do one to a worker, when it executes something; False where none is up."""
        deadline = time.monotonic() + HIT
        while True:
            self.record.look()
            up = self._up(disturbance.slot)
            at_work = [slot for slot in up if self.record.hands.get(slot.number)]
            if at_work or time.monotonic() > deadline:
                break
            time.sleep(0.005)
        if not up:
            return False
        slot = (at_work or up)[0]
        # Somewhere between two instants of its work.
        time.sleep(disturbance.degree * 0.05)
        if slot.process is None or slot.process.poll() is not None:
            return False
        self.record.mark(disturbance.kind, slot.number)
        getattr(self, f"_{disturbance.kind}")(slot)
        self.done[disturbance.kind] += 1
        return True

    def _up(self, first: int) -> list[Slot]:
        """Those that can be disturbed, the planned one first."""
        now = time.monotonic()
        order = self.slots[first:] + self.slots[:first]
        return [
            slot
            for slot in order
            if slot.process is not None
            and slot.asked is None
            and slot.paused is None
            and (slot.number in self.record.hands or now - slot.started > BOOT)
        ]

    def _kill(self, slot: Slot) -> None:
        assert slot.process is not None
        slot.asked, slot.how = time.monotonic(), "kill"
        self._signal(slot, signal.SIGKILL)
        slot.process.wait()
        self._ended(slot)

    def _term(self, slot: Slot) -> None:
        slot.asked, slot.how = time.monotonic(), "term"
        self._signal(slot, signal.SIGTERM)

    def _pause(self, slot: Slot) -> None:
        slot.since = time.monotonic()
        slot.paused = slot.since + 2 * self.settings.heartbeat
        self._signal(slot, signal.SIGSTOP)

    def wake_all(self) -> None:
        """End all pauses."""
        for slot in self.slots:
            if slot.process is not None and slot.paused is not None:
                self._wake(slot)

    def close(self) -> None:
        """Kill all that is left."""
        for slot in self.slots:
            if slot.process is not None:
                self._signal(slot, signal.SIGKILL)
                slot.process.wait()
                slot.process = None
