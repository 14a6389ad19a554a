"""Python workers, and nothing else, on an empty Redis: what the Web UI then has to show."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, Group, Job, WithDelay, Workflow
from interop.tests.processes import DEADLINE, ROOT, Worker
from interop.web.scene_actors import BROKEN, EXECUTIONS, NO_CONSTANT, build
from tests.running import eventually

HERE = Path(__file__).parent
THREADS = 4

#: Arguments that are easy to spoil on their way to a page.
ODD = ["Grüße, мир ☃ 😀", "<b>\"bold\"</b> & 'co'", None, True, 2**70, 1.5, {"ключ": ["é", {}]}]


class Scene:
    """A Redis database that only Python writes to.

    Attributes:
      client: Sees what is really there.
      broker: Of this process, which only sends.
    """

    def __init__(self, url: str, logs: Path) -> None:
        self.url = url
        self.logs = logs
        self.client = redis.Redis.from_url(url, decode_responses=True)
        self.client.flushall()
        self.broker = build(url)
        self.workers: list[Worker] = []
        self._gates: list[str] = []

    # -- processes --------------------------------------------------------------

    def start(self) -> tuple[Worker, str]:
        """Start a `dramatiq` command of one worker process, and wait until it is at work; its identity."""
        before = self.client.smembers("processes")
        environment = {**os.environ, "REDIS_URL": self.url, "PYTHONPATH": str(ROOT), "dramatiq_worker_timeout": "100"}
        command = [sys.executable, "-m", "dramatiq", "scene_app", "-p", "1", "-t", str(THREADS)]
        worker = Worker(
            "python",
            [*command, "--path", str(HERE), "-Q", "python"],
            environment,
            self.logs / f"python-{len(self.workers)}.log",
        )
        self.workers.append(worker)
        found = self.eventually(lambda: self.client.smembers("processes") - before, "the record of a new process")
        (identity,) = found
        return worker, identity

    def close(self) -> None:
        """Leave nothing running."""
        for worker in self.workers:
            worker.kill()
        self.broker.close()
        self.client.close()

    def logs_of_workers(self) -> str:
        return "\n".join(f"--- {worker.log.name}\n{worker.tail()}" for worker in self.workers)

    def eventually(self, condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
        """Wait until a condition holds; its value."""
        try:
            return eventually(condition, seconds, what)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.logs_of_workers()}") from None

    # -- doing ------------------------------------------------------------------

    def send(self, name: str, *args: Any, **options: Any) -> str:
        """Send a job; its jid."""
        return self.broker.get_actor(name).send_with_options(args=args, **options).message_id

    def message(self, name: str, *args: Any) -> dramatiq.Message[Any]:
        """A step of a workflow."""
        return self.broker.get_actor(name).message(*args)

    def run(self, node: Any) -> str:
        """Start a workflow; its run id."""
        return Workflow(node, broker=self.broker).run()

    def carried(self, *args: Any, delay: int = 0) -> str:
        """An actor that Ruby cannot name, and then a Ruby job: it travels in a carrier.  The run id."""
        step = self.message(NO_CONSTANT, *args)
        return self.run(Chain(WithDelay(step, delay=delay) if delay else step, Job("Reports::Build", 7, queue="ruby")))

    def broken(self, kind: str) -> str:
        """A new name; who is given it fails, until it is repaired."""
        name = f"{kind} {uuid.uuid4().hex[:6]}"
        self.client.sadd(BROKEN, name)
        return name

    def repair(self, name: str) -> None:
        self.client.srem(BROKEN, name)

    def hold(self, *more: Any) -> str:
        """A job that keeps a thread busy until :meth:`release`; its jid."""
        gate = f"scene:gate:{len(self._gates)}"
        self._gates.append(gate)
        return self.send("Docs::Hold", gate, *more)

    def release(self) -> None:
        for gate in self._gates:
            self.client.rpush(gate, "open")
        self._gates = []

    # -- looking ----------------------------------------------------------------

    def executions(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.client.lrange(EXECUTIONS, 0, -1)]

    def executed(self, jid: str) -> list[bool]:
        """Of each execution of a job, whether it failed."""
        return [event["failed"] for event in self.executions() if event["jid"] == jid]

    def members(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """Jobs and scores of ``schedule``, ``retry`` or ``dead``."""
        found: list[Any] = self.client.zrange(name, 0, -1, withscores=True)
        return [(json.loads(member), score) for member, score in found]

    def find(self, name: str, jid: str) -> tuple[dict[str, Any], float] | None:
        """A job of a set, and its score."""
        return next(((job, score) for job, score in self.members(name) if job["jid"] == jid), None)

    def of_run(self, name: str, run_id: str) -> dict[str, Any] | None:
        """The job of a run in a set."""
        return next((job for job, _ in self.members(name) if job.get("workflow_run_id") == run_id), None)

    def queued(self, name: str) -> list[dict[str, Any]]:
        """The jobs of a queue, the next one first."""
        return [json.loads(job) for job in reversed(self.client.lrange(f"queue:{name}", 0, -1))]

    def processes(self) -> dict[str, dict[str, Any]]:
        """Identity -> record of each process."""
        found: dict[Any, Any] = {
            identity: self.client.hgetall(identity) for identity in self.client.smembers("processes")
        }
        return {i: {**record, "info": json.loads(record["info"])} for i, record in found.items() if record}

    def busy(self) -> dict[str, dict[str, Any]]:
        """jid -> what a thread works on, as the records of the processes say."""
        works = [json.loads(work) for i in self.processes() for work in self.client.hvals(f"{i}:work")]
        return {json.loads(work["payload"])["jid"]: work for work in works}

    def settled(self) -> bool:
        """Whether the counters of Redis have heard of every execution."""
        return int(self.client.get("stat:processed") or 0) == len(self.executions())

    # -- the filled scene ---------------------------------------------------------

    def fill(self) -> None:
        """Something on each page."""
        before = int(time.time())
        self.start()
        self.start()
        #: Between which two moments the processes were started, in epoch seconds; and the held jobs, below.
        self.started = (before, time.time())
        for number in range(12):
            self.send("Docs::Extract", number)
        self.send("Docs::Extract", *ODD)
        self.send(NO_CONSTANT, "plain")
        self.push_active_job("python", "from Rails")
        self.done = self.run(
            Chain(
                self.message("Docs::Extract", "first"),
                Group(self.message(NO_CONSTANT, "left"), self.message("Docs::Extract", "right")),
                self.message("Docs::Finish"),
            )
        )
        self.retrying = self.send("Docs::Extract", self.broken("report"), *ODD)
        self.retrying_step = self.carried(self.broken("summary"))
        self.dead = self.send("Docs::Once", self.broken("letter"), *ODD)
        self.stuck = self.run(Chain(self.message("Docs::Once", self.broken("page")), self.message("Docs::Finish")))
        self.scheduled = self.send("Docs::Extract", *ODD, delay=7_200_000)
        self.scheduled_step = self.carried("tomorrow", delay=86_400_000)
        self.waiting = [self.send("Docs::Waiting", number, *ODD) for number in range(3)]
        self.push_active_job("waiting", "Rails, too")
        self.carried_to_ruby = self.carried("carried")
        before = int(time.time())
        self.held = [self.hold("busy", number) for number in range(2)]
        self.eventually(lambda: self.client.zcard("retry") == 2 and self.client.zcard("dead") == 2, "retries and dead")
        self.eventually(lambda: "Docs::Finish" in {e["name"] for e in self.executions()}, "the end of a workflow")
        self.eventually(lambda: self.queued("ruby"), "a Ruby step whose turn it is")
        self.eventually(lambda: set(self.busy()) == set(self.held), "the held jobs, and no others, on Busy")
        self.began = (before, time.time())
        self.eventually(self.settled, "counters that know of every execution")

    def push_active_job(self, queue: str, argument: str) -> None:
        """A job as Rails writes one, to an actor of the name of the ActiveJob's class."""
        jid = uuid.uuid4().hex[:24]
        job = {
            "job_class": "Docs::Extract",
            "job_id": str(uuid.uuid4()),
            "queue_name": queue,
            "arguments": [argument],
            "executions": 0,
            "locale": "en",
        }
        payload = {
            "class": "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper",
            "wrapped": "Docs::Extract",
            "queue": queue,
            "args": [job],
            "retry": True,
            "jid": jid,
            "created_at": 1.7e9,
            "enqueued_at": 1.7e9,
        }
        self.client.sadd("queues", queue)
        self.client.lpush(f"queue:{queue}", json.dumps(payload))

    def numbers(self) -> dict[str, int]:
        """What the head of every page has to say."""
        executions = self.executions()
        return {
            "Processed": len(executions),
            "Failed": sum(event["failed"] for event in executions),
            "Busy": len(self.held),
            "Enqueued": sum(self.client.llen(f"queue:{name!s}") for name in self.client.smembers("queues")),
            "Retries": self.client.zcard("retry"),
            "Scheduled": self.client.zcard("schedule"),
            "Dead": self.client.zcard("dead"),
        }

    def by_name(self) -> dict[str, tuple[int, int]]:
        """Actor -> how many executions succeeded and failed."""
        counts = Counter((event["name"], event["failed"]) for event in self.executions())
        return {name: (counts[name, False], counts[name, True]) for name, _ in counts}
