"""Kills workers of both languages while random workflows run, and counts what went wrong.

    python -m interop.chaos --runs 500
    python -m interop.chaos --runs 500 --without-companion

Two Ruby and two Python workers.  One of them at a time is killed with -9 (most
often), paused for so long that it is taken for dead, or stopped and started
again.  At the end every step must have run (else: lost), under one jid (else:
doubled), and after all steps before it (else: early).  The exit code is 1 where
one of these is not 0.

``--without-companion`` has Ruby work with the plain gem, or its stand-in, whose
faults are known; it only reports.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import (
    Job,
    RedisCallbackStorage,
    RedisHashMemory,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
)
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests.processes import ROOT, RUN, Worker
from tests.trees import Shape, before, build, random_shape, violations

EVENTS = "chaos:events"
RUBY, PYTHON = "Chaos::Step", "Chaos::Python"

#: Runs that are under way at once; one that takes longer than this, in seconds, does not count.
AT_ONCE, OVERDUE = 40, 20.0

#: Seconds of rest after which nothing more is to come.
REST = 3.0


def make_broker(url: str, heartbeat: float, references: int | None = None) -> SidekiqBroker:
    """Python's side, of the workers and of this process."""
    client = redis.Redis.from_url(url)
    broker = SidekiqBroker(url=url, heartbeat_timeout=int(heartbeat * 1000), poll_interval=100)
    storage = None if references is None else RedisCallbackStorage(min_bytes=references)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), callback_storage=storage))
    broker.add_middleware(dramatiq.middleware.CurrentMessage())

    @dramatiq.actor(actor_name=PYTHON, queue_name="python", min_backoff=500, max_backoff=1000, broker=broker)
    def step(run: int, number: int, options: dict[str, Any]) -> dict[str, str]:
        message = dramatiq.middleware.CurrentMessage.get_current_message()
        assert message is not None
        jid = message.message_id
        client.rpush(EVENTS, json.dumps(["start", run, number, jid]))
        time.sleep(options["ms"] / 1000)
        if client.incr(f"{EVENTS}:tries:{jid}") <= options["fail"]:
            raise RuntimeError("fails at first")
        client.rpush(EVENTS, json.dumps(["end", run, number, jid]))
        return {f"step{number}": "python"}

    return broker


def work(url: str, heartbeat: float, references: int | None) -> None:
    """A Python worker: one process, so that -9 hits all of it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for all threads to come
    broker = make_broker(url, heartbeat, references)
    worker = dramatiq.Worker(broker, worker_threads=5, worker_timeout=100)
    worker.start()
    signal.sigwait({signal.SIGTERM})
    worker.stop()
    broker.close()


class Fleet:
    """The workers, each started again when it has ended."""

    def __init__(self, url: str, options: argparse.Namespace, logs: Path) -> None:
        self.url, self.options, self.logs = url, options, logs
        self.rng = random.Random(options.seed + 1)
        self.workers: list[tuple[Worker, float]] = []
        self.paused: dict[int, float] = {}
        self.done: Counter[str] = Counter()
        self._started = 0
        for language in ("ruby", "ruby", "python", "python"):
            self._start(language)

    def _start(self, language: str) -> None:
        self._started += 1
        environment = {**os.environ, "REDIS_URL": self.url, "INTEROP_ENGINE": "chroot"}
        if language == "python":
            command = [sys.executable, "-m", "interop.chaos", "--work", self.url]
            command += ["--heartbeat", str(self.options.heartbeat)]
            if self.options.references is not None:
                command += ["--references", str(self.options.references)]
            environment["PYTHONPATH"] = str(ROOT)
        else:
            command = [str(RUN), "sidekiq", "-r", "./chaos.rb", "-q", "ruby", "-q", "default", "-c", "5"]
            environment.update(INTEROP_POLL="0.5", INTEROP_TIMEOUT="3", INTEROP_QUIET="1")
            if self.options.without_companion:
                environment["INTEROP_PYTHON_CLASSES"] = PYTHON
            else:
                environment.update(
                    INTEROP_EXTRA=str(ROOT / "dramatiq_sidekiq_flow" / "ruby"),
                    INTEROP_REQUIRE="/interop/extra/sidekiq_flow_companion.rb",
                    INTEROP_HEARTBEAT=str(self.options.heartbeat),
                )
                if self.options.references is not None:
                    environment["INTEROP_REFERENCES"] = str(self.options.references)
        worker = Worker(language, command, environment, self.logs / f"{self._started:03}-{language}.log")
        self.workers.append((worker, time.monotonic()))

    def disturb(self) -> None:
        """Kill, pause or stop one that has been up for a while."""
        now = time.monotonic()
        up = [w for w, since in self.workers if now - since > 2 and w.process.pid not in self.paused]
        if not up or self.paused:
            return
        worker, what = self.rng.choice(up), self.rng.random()
        if what < 0.8:
            worker.kill()
            self.done[f"{worker.name} killed"] += 1
        elif what < 0.9:
            worker.process.send_signal(signal.SIGSTOP)
            self.paused[worker.process.pid] = now + 2 * self.options.heartbeat
            self.done[f"{worker.name} paused"] += 1
        else:
            worker.terminate()
            self.done[f"{worker.name} stopped"] += 1

    def tend(self) -> None:
        """Start what has ended, and wake what was paused for long enough."""
        for pid, until in list(self.paused.items()):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGCONT)
                del self.paused[pid]
        for entry in list(self.workers):
            worker, _ = entry
            if worker.process.poll() is not None:
                if worker.process.returncode not in (0, -signal.SIGKILL):
                    self.done[f"{worker.name} ended by itself"] += 1
                    print(f"a {worker.name} worker ended with {worker.process.returncode}:\n{worker.tail()}")
                self.workers.remove(entry)
                self._start(worker.name)

    def close(self) -> None:
        """Kill all that is left."""
        for worker, _ in self.workers:
            worker.kill()


class Runs:
    """The workflows, and what is known of their steps."""

    def __init__(self, broker: SidekiqBroker, client: redis.Redis, rng: random.Random) -> None:
        self.broker, self.client, self.rng = broker, client, rng
        self.shapes: list[Shape] = []
        self.counts: list[int] = []
        self.left: dict[int, set[int]] = {}
        self.since: dict[int, float] = {}
        self.events: dict[int, list[tuple[str, int]]] = defaultdict(list)
        self.jids: dict[tuple[int, int], set[str]] = defaultdict(set)
        self.pills = 0
        self._read = 0
        self.last_event = time.monotonic()

    def start(self) -> None:
        """One more."""
        while True:
            shape = random_shape(self.rng, 4)
            _, count = build(shape, lambda n: Job("any"))
            if count >= 3 or self.rng.random() < 0.05:
                break
        run = len(self.shapes)

        def job(number: int) -> Job:
            options = {"ms": self.rng.randrange(250), "fail": int(self.rng.random() < 0.05)}
            name, queue = self.rng.choice(((RUBY, "ruby"), (PYTHON, "python")))
            return Job(name, run, number, options, queue=queue)

        tree, count = build(shape, job)
        self.shapes.append(shape)
        self.counts.append(count)
        self.left[run] = set(range(count))
        self.since[run] = time.monotonic()
        Workflow(tree, self.broker).run()

    def look(self) -> None:
        """Read what has happened."""
        for line in self.client.lrange(EVENTS, self._read, -1):
            self._read += 1
            self.last_event = time.monotonic()
            what, run, number, jid = json.loads(line)
            self.events[run].append((what, number))
            self.jids[run, number].add(jid)
            if what == "end":
                self.left[run].discard(number)

    @property
    def under_way(self) -> int:
        now = time.monotonic()
        return sum(1 for run, left in self.left.items() if left and now - self.since[run] < OVERDUE)

    @property
    def finished(self) -> int:
        return sum(1 for left in self.left.values() if not left)

    def nurse(self) -> None:
        """What a person would do: retries need not wait, and poison pills are tried again."""
        now = time.time()
        for member, score in self.client.zrange("retry", 0, -1, withscores=True):
            if score > now + 0.5:
                self.client.zadd("retry", {member: now + 0.5}, xx=True)
        for member in self.client.zrange("dead", 0, -1):
            fields = json.loads(member)
            if fields.get("error_class") == "PoisonPill" and self.client.zrem("dead", member):
                self.pills += 1
                self.client.lpush(f"queue:{fields['queue']}", member)

    def at_rest(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        lists = [self.client.llen(f"queue:{queue}") for queue in ("ruby", "python", "default")]
        sets = [self.client.zcard(name) for name in ("schedule", "retry")]
        return not any(lists) and not any(sets) and not list(self.client.scan_iter("swf:inflight:*"))

    def problems(self) -> dict[str, list[str]]:
        """Lost, doubled and early steps."""
        found: dict[str, list[str]] = {"lost": [], "doubled": [], "early": []}
        for run, shape in enumerate(self.shapes):
            lost = self.left[run]
            # What comes after a lost step is not lost, but waits.
            waiting = {later for earlier, later in before(shape) if earlier in lost}
            found["lost"] += [f"step {n} of run {run}" for n in sorted(lost - waiting)]
            found["doubled"] += [
                f"step {n} of run {run}" for n in range(self.counts[run]) if len(self.jids[run, n]) > 1
            ]
            found["early"] += [
                f"run {run}: {problem}"
                for problem in violations(shape, self.counts[run], self.events[run])
                if "before" in problem
            ]
        return found


def chaos(options: argparse.Namespace, url: str, logs: Path) -> bool:
    """All of it; whether nothing went wrong."""
    client = redis.Redis.from_url(url)
    broker = make_broker(url, options.heartbeat, options.references)
    runs = Runs(broker, client, random.Random(options.seed))
    fleet = Fleet(url, options, logs)
    began = time.monotonic()
    disturb_at = began + 5
    shown = 0.0
    rest_since: float | None = None
    try:
        while True:
            now = time.monotonic()
            fleet.tend()
            runs.look()
            runs.nurse()
            while len(runs.shapes) < min(options.runs, (now - began) * options.rate) and runs.under_way < AT_ONCE:
                runs.start()
            calm = len(runs.shapes) == options.runs and runs.under_way < AT_ONCE / 4
            if now > disturb_at and not calm:
                fleet.disturb()
                disturb_at = now + options.every * fleet.rng.uniform(0.5, 1.5)
            if now - shown > 10:
                shown = now
                disturbed = sum(fleet.done.values())
                print(
                    f"{now - began:4.0f} s  {len(runs.shapes)} started, {runs.finished} finished, {disturbed} disturbed"
                )
            if not (calm and now - runs.last_event > REST and not fleet.paused and runs.at_rest()):
                rest_since = None
            elif rest_since is None:
                rest_since = now
            elif now - rest_since > REST:
                break
            if calm and now - runs.last_event > 60:
                print("no rest within a minute of the last event")
                break
            time.sleep(0.05)
        runs.look()
        found = runs.problems()
        seconds = time.monotonic() - began
        dead = Counter(json.loads(m).get("error_class") for m in client.zrange("dead", 0, -1))
        recovered = sum(int(client.get(key) or 0) for key in client.scan_iter("swf:recovered:*"))
        starts = sum(what == "start" for events in runs.events.values() for what, _ in events)
    finally:
        fleet.close()
        broker.close()
    total = sum(runs.counts)
    print(
        f"{options.runs} runs of {total} steps in {seconds:.0f} s, seed {options.seed}, "
        f"{'without' if options.without_companion else 'with'} the companion"
    )
    print(f"workers: {', '.join(f'{count} {what}' for what, count in sorted(fleet.done.items()))}")
    print(
        f"jobs recovered: {recovered}; steps started {starts} times"
        f"\npoison pills tried again: {runs.pills}; dead: {dict(dead) or 'none'}"
    )
    print(f"runs not finished: {options.runs - runs.finished}")
    for kind, problems in found.items():
        print(f"{kind}: {len(problems)}" + "".join(f"\n    {problem}" for problem in problems[:10]))
    return not any(found.values())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m interop.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500, help="how many workflows (500)")
    parser.add_argument("--rate", type=float, default=5.0, help="workflows started in a second, at most (5)")
    parser.add_argument("--every", type=float, default=0.8, help="seconds between two disturbances, on average (0.8)")
    parser.add_argument("--heartbeat", type=float, default=3.0, help="seconds until a silent worker is dead (3)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of trees and kills")
    parser.add_argument("--without-companion", action="store_true", help="Ruby works with the plain gem; only report")
    parser.add_argument("--references", type=int, help="keep chains of so many bytes by reference, in both languages")
    parser.add_argument("--logs", type=Path, help="keep the workers' logs in this folder")
    parser.add_argument("--work", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        work(options.work, options.heartbeat, options.references)
        return 0
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(binary=shutil.which("redis-server")) as server:
        logs = options.logs or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        good = chaos(options, server.url, logs)
    return 0 if good or options.without_companion else 1


if __name__ == "__main__":
    sys.exit(main())
