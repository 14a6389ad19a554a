"""One lane: a server, a proxy and a zygote; it takes one point after the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import redis

from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.store import scripts

from . import judge, modes
from .judge import Event, Finding
from .proxy import Harm, Proxy
from .scenario import Scenario
from .scenarios import SCENARIOS
from .worker import Task, Zygote, mend

#: Seconds that the clean worker has to finish.
CLEAN = 40.0

#: Seconds between two looks at the world.
LOOK = 0.004


@attrs.frozen
class Point:
    """One command of one scenario, hurt in one way; number 0 hurts none and counts."""

    scenario: str
    mode: str
    number: int


@attrs.frozen
class Outcome:
    """What came of a point.

    Attributes:
      hit: Name of the command; empty where it never came.
      commands: How many commands the process has sent.
      clean: Whether the clean worker was needed.
      repeated: Of a late command, how often it was repeated before it came.
      log: The end of what the processes logged, where something was found.
    """

    point: Point
    hit: str
    error: str
    commands: int
    seconds: float
    clean: bool
    repeated: int
    findings: tuple[Finding, ...]
    log: str = ""


@attrs.frozen
class _Key:
    name: bytes
    value: bytes
    milliseconds: int


@attrs.frozen
class _Snapshot:
    """All of Redis as the sweep of a scenario finds it."""

    taken: float
    keys: tuple[_Key, ...]
    events: tuple[Event, ...] = ()


class Lane:
    """Runs points.  Use as an asynchronous context manager.

    Parameters:
      verbose: Every command is printed, and the workers log all.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self.verbose = verbose
        self.folder = tempfile.TemporaryDirectory(prefix="sweep-")
        self.log = Path(self.folder.name, "log")
        self.mended = Path(self.folder.name, "mended")
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        # Before anything else is there that a fork would take along.
        self.zygote = Zygote(write)
        os.close(write)
        self.server = EmbeddedServer()
        self._buffer = b""
        self._point = 0
        self._snapshots: dict[str, _Snapshot] = {}
        self.events: list[Event] = []
        self._ended: set[tuple[int, int]] = set()
        self._starts = 0

    async def __aenter__(self) -> Lane:
        self.server.start()
        self.client: Any = redis.Redis.from_url(self.server.url)
        # Each point finds them known: the number of commands is the same.
        for script in scripts.ALL:
            self.client.script_load(script.source)
        self.proxy = Proxy(self.server.port)
        await self.proxy.start()
        asyncio.get_running_loop().add_reader(self._read, self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._read)
        self.zygote.close()
        await self.proxy.close()
        self.client.close()
        self.server.stop()
        os.close(self._read)
        self.folder.cleanup()

    async def run(self, point: Point) -> Outcome:
        """Take one point."""
        began = time.monotonic()
        scenario = SCENARIOS[point.scenario]
        if scenario.name not in self._snapshots:
            self._snapshots[scenario.name] = await self._prepare(scenario)
        self._reset()
        self._restore(self._snapshots[scenario.name])
        for event in self._snapshots[scenario.name].events:
            self._note(event)
        return await _Passage(self, scenario, point, began).run()

    def task(self, role: str, scenario: Scenario, url: str) -> Task:
        """A process of the point that is under way."""
        return Task(role, scenario.name, url, self._point, str(self.log), str(self.mended), self.verbose)

    @property
    def all_ended(self) -> set[tuple[int, int]]:
        """The steps that have ended."""
        return self._ended

    @property
    def starts(self) -> int:
        """How many steps were begun."""
        return self._starts

    async def ended(self, pid: int, seconds: float = 10.0) -> int | None:
        """Wait for the end of a process; its exit code, None where it lives on."""
        deadline = time.monotonic() + seconds
        while (code := self.zygote.poll(pid)) is None and time.monotonic() < deadline:
            await asyncio.sleep(LOOK)
        return code

    async def kill(self, pid: int) -> None:
        """Kill a process, and wait for its end."""
        if self.zygote.poll(pid) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await self.ended(pid)

    def let_die(self) -> None:
        """Make the last beat of each worker an old one, so that they are missed at once."""
        for member in self.client.zrange("swf:workers", 0, -1):
            self.client.zadd("swf:workers", {member: time.time() - 3600}, xx=True)

    async def _prepare(self, scenario: Scenario) -> _Snapshot:
        """Begin the runs, once; each point finds the same."""
        self._reset()
        pid = self.zygote.fork(self.task("starter", scenario, self.server.url))
        code = await self.ended(pid, 60.0)
        if code != 0:
            raise RuntimeError(f"{scenario.name} could not be begun: {code}\n{self.log.read_text()[-4000:]}")
        if scenario.doomed:
            await self._doom(scenario)
        return await self._before(scenario) if scenario.prepared else self._take()

    async def _before(self, scenario: Scenario) -> _Snapshot:
        """A worker does all that can be done."""
        pid = self.zygote.fork(self.task("worker", scenario, self.server.url))
        deadline, quiet = time.monotonic() + 30, 0
        while quiet < 100:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{scenario.name}: not prepared\n{self.log.read_text()[-4000:]}")
            await asyncio.sleep(LOOK)
            quiet = 0 if judge.moves(self.client) else quiet + 1
        await self.kill(pid)
        self.let_die()
        return attrs.evolve(self._take(), events=tuple(self.events))

    async def _doom(self, scenario: Scenario) -> None:
        """A worker takes jobs, begins some, and dies."""
        pid = self.zygote.fork(self.task("doomed", scenario, self.server.url))
        deadline = time.monotonic() + 30
        # Some are begun, and others fetched ahead.
        while self.starts < scenario.threads or self._in_flight() <= scenario.threads:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{scenario.name}: no worker took the jobs\n{self.log.read_text()[-4000:]}")
            await asyncio.sleep(LOOK)
        await self.kill(pid)
        self.let_die()

    def _in_flight(self) -> int:
        return sum(self.client.hlen(name) for name in self.client.keys("swf:inflight:*"))

    def _reset(self) -> None:
        self._point += 1
        self.client.flushall()
        self.mended.unlink(missing_ok=True)
        self.log.write_bytes(b"")
        self.events, self._ended, self._starts = [], set(), 0

    def _take(self) -> _Snapshot:
        found = []
        for name in self.client.keys("*"):
            value = self.client.dump(name)
            if value is not None:
                found.append(_Key(name, value, max(0, self.client.pttl(name))))
        return _Snapshot(time.time(), tuple(found))

    def _restore(self, snapshot: _Snapshot) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            for key in snapshot.keys:
                pipe.restore(key.name, key.milliseconds, key.value)
            pipe.execute()
        # Delays begin now.
        age = time.time() - snapshot.taken
        for member, score in self.client.zrange("schedule", 0, -1, withscores=True):
            self.client.zadd("schedule", {member: score + age})

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._read, 1 << 16):
                self._buffer += data
                if len(data) < 1 << 16:
                    break
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            event = Event.read(line)
            if event.point != self._point:
                continue
            self._note(event)

    def _note(self, event: Event) -> None:
        self.events.append(event)
        if self.verbose:
            print(f"      {event}", flush=True)
        if event.what == "end":
            self._ended.add((event.run, event.step))
        elif event.what == "start":
            self._starts += 1


class _Passage:
    """One point from the beginning to the verdict."""

    def __init__(self, lane: Lane, scenario: Scenario, point: Point, began: float) -> None:
        self.lane, self.scenario, self.point, self.began = lane, scenario, point, began
        self.wanted = judge.expected(scenario)
        self.pid = self.steerer = 0
        self.clean = False
        self.findings: list[Finding] = []
        self._term_sent = False
        self.harm = Harm(modes.MODES[point.mode], point.number, self._kill_now, scenario.handshakes)
        if lane.verbose:
            self.harm.log = lambda text: print(text, flush=True)

    async def run(self) -> Outcome:
        lane, scenario = self.lane, self.scenario
        await lane.proxy.arm(self.harm)
        self.pid = lane.zygote.fork(lane.task(scenario.hurt, scenario, lane.proxy.url))
        finished = await self._until(self.pid, scenario.patience)
        if await lane.proxy.deliver() and finished:
            finished = await self._until(self.pid, scenario.patience)
        await lane.kill(self.pid)
        if not finished:
            await self._clean_up()
        if self.steerer and await lane.ended(self.steerer) != 0:
            self.findings.append(Finding("stuck", "the run could not be paused and resumed"))
        await lane.proxy.disconnect()
        lane._hear()
        world = judge.look(lane.client, scenario, lane.events)
        findings = (*self.findings, *judge.judge(scenario, world))
        return Outcome(
            self.point,
            self.harm.hit,
            self.harm.error,
            self.harm.seen,
            time.monotonic() - self.began,
            self.clean,
            self.harm.repeated,
            findings,
            lane.log.read_text("utf-8", "replace")[-6000:] if findings else "",
        )

    async def _clean_up(self) -> None:
        """A worker that is not hurt finishes what the hurt process has left."""
        lane, scenario = self.lane, self.scenario
        self.clean = True
        # A run that does not go on must expire, too.
        self.findings += judge.forever(judge.look(lane.client, scenario, ()))
        if lane.verbose:
            print("      the clean worker takes over", flush=True)
        if scenario.hurt == "producer":
            # A producer that does not know whether its call took effect repeats it.
            producer = lane.zygote.fork(lane.task("producer", scenario, lane.server.url))
            await lane.ended(producer, 60.0)
        lane.let_die()
        lane.client.delete("swf:keeper")
        worker = lane.zygote.fork(lane.task("worker", scenario, lane.server.url))
        await self._until(worker, CLEAN)
        await lane.kill(worker)

    async def _until(self, pid: int, seconds: float) -> bool:
        """Wait until all is done; False where the process has ended, or the time is up."""
        lane = self.lane
        deadline = time.monotonic() + seconds
        next_poll = 0.0
        while True:
            stops_itself = self.scenario.term and pid == self.pid
            if not stops_itself and self.wanted <= lane.all_ended and judge.at_rest(lane.client):
                return True
            now = time.monotonic()
            if now >= next_poll:
                next_poll = now + 0.02
                if lane.zygote.poll(pid) is not None:
                    await asyncio.sleep(0)
                    return False
                self._tend(pid)
            if now > deadline:
                return False
            await asyncio.sleep(LOOK)

    def _tend(self, pid: int) -> None:
        """What a person does meanwhile."""
        lane, scenario = self.lane, self.scenario
        if scenario.term and pid == self.pid and lane.starts >= scenario.term and not self._term_sent:
            self._term_sent = True
            os.kill(pid, signal.SIGTERM)
        if scenario.steered and lane.starts >= scenario.steered and not self.steerer:
            self.steerer = lane.zygote.fork(lane.task("steerer", scenario, lane.server.url))
        if scenario.mends:
            for member in lane.client.zrange("dead", 0, -1):
                mend(str(lane.mended))
                # As Sidekiq's Web UI does.
                if lane.client.zrem("dead", member):
                    lane.client.sadd("queues", "sweep")
                    lane.client.lpush("queue:sweep", member)

    def _kill_now(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """For the file."""
    return attrs.asdict(outcome)
