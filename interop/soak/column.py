"""One system under its disturbances, from the first worker to rest."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import redis

from .disturbances import Disturbance, digest, plan
from .fleet import Fleet
from .judge import Verdict, judge
from .producer import Producer
from .record import Event, Record
from .records import looks
from .run_judge import RunVerdict, judge_runs
from .server import Server
from .settings import TO_WORKERS, Settings
from .systems import System

#: Seconds without an event, at rest, after which nothing more is to come.
REST = 2.0

#: Seconds after a disturbance until all workers reach the server again.
AWAKE = 2.0

#: Between two lines of progress, and between two looks of the nurse, in seconds.
PROGRESS, NURSE = 10.0, 0.5


@attrs.frozen
class Outcome:
    """What one column has shown."""

    system: System
    settings: Settings
    verdict: Verdict
    #: Disturbance -> how often; beside them what else happened to workers.
    done: Mapping[str, int]
    #: Disturbances for which no worker was up.
    missed: int
    plan: str
    seconds: float
    #: Starts of workflows that raised, and runs that are not counted for it.
    refused: int
    dropped: int
    nursed: Mapping[str, int]
    #: What waits or is in flight at the end; not empty where it did not come to rest.
    left: Mapping[str, int]
    dead: Mapping[str, int]
    server: str
    #: Of its records, and how often runs were steered.
    runs: RunVerdict = attrs.field(factory=RunVerdict)
    steered: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def holds(self) -> bool:
        return self.verdict.holds and self.runs.holds and not self.left


class Column:
    """One system, with a server, a fleet and a producer of its own.

    Parameters:
      folder: For the server's files, the record and the logs.
    """

    def __init__(self, system: System, settings: Settings, folder: Path) -> None:
        self.system, self.settings = system, settings
        folder.mkdir(parents=True, exist_ok=True)
        self.server = Server(folder / "redis")
        self.record = Record(folder / "record")
        self.fleet = Fleet(system, settings, self.server.url, self.record, folder)
        self.planned = plan(settings.seed, settings.seconds, len(self.fleet.slots), system.kinds)
        self.done: Counter[str] = Counter()
        self.nursed: Counter[str] = Counter()
        self.missed = 0
        self.began = 0.0
        #: Times in which the server was disturbed.
        self.sick: list[tuple[float, float]] = []
        self._errors: list[BaseException] = []
        self._ended = threading.Event()

    def run(self) -> Outcome:
        """Run it to its end."""
        try:
            self.server.start()
            version = self.server.version
            broker = self.system.broker(self.server.url, self.settings.heartbeat, self.settings.references)
            producer = Producer(self.system, broker, self.record, self.settings)
            try:
                return self._run(producer, version)
            finally:
                if producer.steerer:
                    producer.steerer.stop()
                broker.close()
        finally:
            self._ended.set()
            self.fleet.close()
            self.server.kill()
            self.record.close()

    def _run(self, producer: Producer, version: str) -> Outcome:
        self.fleet.tend()
        producer.start()
        self._boot(producer)
        self.began = time.monotonic()
        to_server = [d for d in self.planned if d.kind not in TO_WORKERS]
        to_workers = [d for d in self.planned if d.kind in TO_WORKERS]
        threads = [
            threading.Thread(target=self._guarded, args=(self._disturb_server, to_server), daemon=True),
            threading.Thread(target=self._guarded, args=(self._disturb_workers, to_workers), daemon=True),
        ]
        for thread in threads:
            thread.start()
        self._watch(producer, threads)
        seconds = time.monotonic() - self.began
        left: dict[str, int] = self.system.left(self.server.admin)
        # Those that are not counted were last; or lost, and then their numbers stay.
        pills = self.system.pills(self.server.admin)
        events = [event for event in self.record.events if event.run not in producer.dropped]
        verdict = judge(
            [("chain", []) if run in producer.dropped else shape for run, shape in enumerate(producer.shapes)],
            # What takes the place of a step that has died with its workers does not wait for its end.
            [*(Event("end", run, step, "", 0, 0.0) for run, step in pills), *events],
            self.fleet.deaths,
            self.fleet.pauses,
            producer.steerer.cancelled if producer.steerer else (),
        )
        return Outcome(
            system=self.system,
            settings=self.settings,
            verdict=verdict,
            done=dict(self.done + self.fleet.done),
            missed=self.missed,
            plan=digest(self.planned),
            seconds=seconds,
            refused=producer.refused,
            dropped=len(producer.dropped),
            nursed=dict(self.nursed),
            left=left,
            dead=dict(self.system.dead(self.server.admin)),
            server=version,
            runs=self._judge_runs(producer, pills),
            steered=dict(producer.steerer.done) if producer.steerer else {},
        )

    def _judge_runs(self, producer: Producer, pills: frozenset[tuple[int, int]]) -> RunVerdict:
        steerer = producer.steerer
        if steerer is None:
            return RunVerdict()
        steerer.stop()
        stood = [(pause.at, pause.until + AWAKE) for pause in self.fleet.pauses]
        return judge_runs(
            steerer.plans,
            steerer.cancelled,
            looks(steerer.runs, steerer.plans),
            self.record.events,
            steerer.windows,
            pills=pills,
            disturbed=[*self.sick, *stood],
        )

    def _boot(self, producer: Producer) -> None:
        """Wait until each worker has executed something, for a while."""
        deadline = time.monotonic() + 30
        while len(self.record.hands) < len(self.fleet.slots) and time.monotonic() < deadline:
            self.fleet.tend()
            producer.note(self.record.look())
            time.sleep(0.02)

    # -- what disturbs, in threads of their own ---------------------------------------

    def _guarded(self, disturb: object, planned: Sequence[Disturbance]) -> None:
        try:
            assert callable(disturb)
            disturb(planned)
        except BaseException as e:
            self._errors.append(e)

    def _disturb_server(self, planned: Sequence[Disturbance]) -> None:
        for disturbance in planned:
            if self._ended.wait(max(0.0, self.began + disturbance.at - time.monotonic())):
                return
            self.record.mark(disturbance.kind)
            began = time.monotonic()
            self.server.disturb(disturbance)
            self.sick.append((began, time.monotonic() + AWAKE))
            self.record.mark(f"{disturbance.kind} is over")
            self.done[disturbance.kind] += 1

    def _disturb_workers(self, planned: Sequence[Disturbance]) -> None:
        for disturbance in planned:
            while time.monotonic() < self.began + disturbance.at:
                if self._ended.wait(0.01):
                    return
                self.fleet.tend()
            self.missed += not self.fleet.disturb(disturbance)
        while any(slot.paused is not None for slot in self.fleet.slots) and not self._ended.wait(0.05):
            self.fleet.tend()

    # -- what watches -----------------------------------------------------------------

    def _watch(self, producer: Producer, threads: Sequence[threading.Thread]) -> None:
        shown = nursed = 0.0
        rest_since: float | None = None
        calm = False
        while True:
            now = time.monotonic()
            producer.note(self.record.look())
            producer.check()
            if self._errors:
                raise RuntimeError("a disturbance has failed") from self._errors[0]
            if not calm and now - self.began > self.settings.seconds and not any(t.is_alive() for t in threads):
                producer.stop()
                calm = True
            if calm:
                self.fleet.tend()
            if now - nursed > NURSE:
                nursed = now
                self._nurse()
            if now - shown > PROGRESS:
                shown = now
                self._show(producer, calm)
            if not (calm and now - self.record.last > REST and self._at_rest(producer)):
                rest_since = None
            elif rest_since is None:
                rest_since = now
            elif now - rest_since > REST:
                return
            if calm and now - self.record.last > self.settings.patience:
                print(f"  {self.settings.patience:.0f} s without a step, and not at rest: it is given up", flush=True)
                return
            time.sleep(0.02)

    def _nurse(self) -> None:
        # What Redis is made to refuse is done at the next look.
        with contextlib.suppress(redis.RedisError):
            self.nursed += self.system.nurse(self.server.admin)

    def _at_rest(self, producer: Producer) -> bool:
        if producer.steerer and not producer.steerer.idle:
            return False
        with contextlib.suppress(redis.RedisError):
            return not self.system.left(self.server.admin)
        return False

    def _show(self, producer: Producer, calm: bool) -> None:
        fleet = self.fleet.done
        others = self.done.total() + fleet["pause"]
        print(
            f"  {time.monotonic() - self.began:4.0f} s  {len(producer.shapes)} workflows, {producer.finished} done; "
            f"{fleet['kill']} -9, {fleet['term']} TERM, {others} others{', calm' if calm else ''}",
            flush=True,
        )
