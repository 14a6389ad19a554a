"""The processes of a point: workers and producers, forked from one that has imported all.

What a step does is told over a pipe that no command goes through, so that it is
neither counted nor hurt.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import dramatiq
import redis

from dramatiq_sidekiq_flow import (
    RedisCallbackStorage,
    RedisHashMemory,
    Runs,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
    actor,
    current_run,
    send_many,
    template,
    templates,
)
from dramatiq_sidekiq_flow.context import current_job

from ..trees import build
from .nodes import QUEUE, Part, calls_of, step_maker, typed_name
from .scenario import Scenario, output, run_id
from .scenarios import SCENARIOS
from .steering import ACTIONS, hurry_keeper

#: Milliseconds: a beat each fifth of it.
HEARTBEAT = 1_000

#: Retries of a step; one that a person has to mend has a single one.
RETRIES = 10


@attrs.frozen
class Task:
    """A process to be forked.

    Attributes:
      role: ``starter``, ``worker``, ``doomed``, ``producer`` or ``steerer``.
      point: Told with each event, so that a process of another point is not heard.
      mended: A file that is there once a person has mended what failed.
    """

    role: str
    scenario: str
    url: str
    point: int
    log: str
    mended: str
    verbose: bool = False


class Reporter:
    """Writes events to the pipe; a line at a time is written whole."""

    def __init__(self, pipe: int, task: Task) -> None:
        self.pipe, self.task = pipe, task

    def tell(self, what: str, run: int = -1, step: int = -1, **more: Any) -> None:
        """One event of this process."""
        event = {"what": what, "run": run, "step": step, "pid": os.getpid(), "point": self.task.point, **more}
        os.write(self.pipe, json.dumps(event).encode() + b"\n")


def make_broker(task: Task, reporter: Reporter) -> SidekiqBroker:
    """The application of all these processes."""
    scenario = SCENARIOS[task.scenario]
    broker = SidekiqBroker(url=task.url, heartbeat_timeout=HEARTBEAT, poll_interval=100)
    storage = RedisCallbackStorage(min_bytes=0) if scenario.references else None
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory(), callback_storage=storage))
    dramatiq.set_broker(broker)

    def work(run: int, step: int, given: dict[str, Any] | None = None) -> dict[str, str] | None:
        options = scenario.runs[run].options.get(step, {}) if given is None else given
        job = current_job()
        assert job is not None
        if options.get("dies") != "caught":
            reporter.tell("start", run, step, jid=job.jid)
        if options.get("hangs") and task.role == "doomed":
            time.sleep(3600)
        if "ms" in options:
            time.sleep(options["ms"] / 1000)
        for name, value in scenario.runs[run].seed.items() if options.get("seed") else ():
            found = current_run().memory.read(name).get(name)
            if found != value:
                reporter.tell("memory", run, step, found=repr(found)[:100])
        if "starts" in options:
            for number in options["starts"]:
                begin(scenario, number, broker, reporter)
        if "grows" in options:
            shape, first = options["grows"]
            make = step_maker(scenario, run, broker)
            current_run().replace(build(shape, lambda index: make(first + index))[0])
        if "adds" in options:
            shape, first = options["adds"]
            make = step_maker(scenario, run, broker)
            current_run().add(build(shape, lambda index: make(first + index))[0])
        if options.get("dies") == "caught":
            raise RuntimeError("its fallback tells")
        if options.get("fail") == "first" and job.fields.get("retry_count") is None:
            raise RuntimeError("fails at first")
        if options.get("fail") == "mended" and not os.path.exists(task.mended):
            raise RuntimeError("fails until it is mended")
        reporter.tell("end", run, step, jid=job.jid)
        for action in options.get("acts", ()):
            ACTIONS[action](Runs(broker), run, scenario.runs[run])
        if "dies" in options:
            raise RuntimeError("has ended, and is dead")
        return {f"step{step}": output(step, options)} if "out" in options else None

    backoff: dict[str, Any] = {"min_backoff": 20, "max_backoff": 40, "queue_name": QUEUE, "broker": broker}
    declare: Any = dramatiq.actor
    declare(work, actor_name="Sweep::Step", max_retries=RETRIES, **backoff)
    declare(work, actor_name="Sweep::Mended", max_retries=1, **backoff)
    declare(work, actor_name="Sweep::Dies", max_retries=0, **backoff)

    def call(run: int, step: int, told: dict[str, Any] | None = None) -> None:
        job = current_job()
        assert job is not None
        # A second push of the same job would have another time.
        origin = f"{job.jid} {job.fields['enqueued_at']}"
        reporter.tell("start", run, step, jid=origin, found=(told or {}).get("state", ""))
        reporter.tell("end", run, step, jid=origin)

    declare(call, actor_name="Sweep::Call", max_retries=RETRIES, **backoff)
    _declare_typed(scenario, work, backoff)
    templates.clear()
    for number, run in enumerate(scenario.runs):
        if run.how == "template":
            template(f"run{number}")(lambda params, number=number: _tree(scenario, number, broker))
    return broker


def _declare_typed(scenario: Scenario, work: Callable[..., Any], options: dict[str, Any]) -> None:
    """An actor for each typed step: its output sets a field of its own."""
    for number, run in enumerate(scenario.runs):
        for step in range(run.count if run.how == "typed" else 0):
            declare: Any = actor
            declare(_of_one(work, number, step), actor_name=typed_name(number, step), max_retries=RETRIES, **options)


def _of_one(work: Callable[..., Any], number: int, step: int) -> Callable[[Part], dict[str, str]]:
    def of_one(input: Part) -> dict[str, str]:
        found: dict[str, str] = work(number, step)
        return found

    of_one.__annotations__ = {"input": Part, "return": dict[str, str]}
    return of_one


def _tree(scenario: Scenario, number: int, broker: SidekiqBroker) -> Any:
    return scenario.runs[number].tree(step_maker(scenario, number, broker))


def begin(scenario: Scenario, number: int, broker: SidekiqBroker, reporter: Reporter) -> None:
    """Start one run of a scenario; again has no effect, but for single jobs."""
    run = scenario.runs[number]
    if run.how == "many":
        for index in range(run.count):
            reporter.tell("sent", number, index)
        send_many(broker.get_actor("Sweep::Step"), [(number, index, {}) for index in range(run.count)])
    elif run.plain:
        step = step_maker(scenario, number, broker)
        for index in range(run.count):
            reporter.tell("sent", number, index)
            broker.enqueue(step(index))
    elif run.how == "template":
        templates.run(f"run{number}", dict(run.seed), run_id=run_id(number), broker=broker)
    else:
        Workflow(_tree(scenario, number, broker), broker, **calls_of(scenario, number)).run(run_id(number))


def start(task: Task, reporter: Reporter) -> None:
    """Begin what the sweep finds there."""
    scenario = SCENARIOS[task.scenario]
    broker = make_broker(task, reporter)
    for number, run in enumerate(scenario.runs):
        if run.by == "starter":
            begin(scenario, number, broker, reporter)
    broker.close()


def produce(task: Task, reporter: Reporter) -> None:
    """Begin the runs of a producer, each again until no error comes."""
    scenario = SCENARIOS[task.scenario]
    broker = make_broker(task, reporter)
    for number, run in enumerate(scenario.runs):
        if run.by == "producer":
            _insist(reporter, number, lambda number=number: begin(scenario, number, broker, reporter))
        if run.steers:
            mend(task.mended)
        for action in run.steers:
            _insist(reporter, number, lambda *of, action=action: ACTIONS[action](Runs(broker), *of), number, run)
    broker.close()


def _insist(reporter: Reporter, number: int, act: Callable[..., None], *of: Any) -> None:
    """Do it again until no error comes."""
    for _ in range(50):
        try:
            act(*of)
        except (redis.RedisError, dramatiq.ConnectionClosed) as e:
            reporter.tell("raised", number, error=f"{type(e).__name__}: {e}"[:200])
            time.sleep(0.01)
        else:
            reporter.tell("started", number)
            return


def steer(task: Task, reporter: Reporter) -> None:
    """Pause the first run while it runs, and resume it."""
    broker = make_broker(task, reporter)
    runs, run = Runs(broker), SCENARIOS[task.scenario].runs[0]
    for action in ("pause", "resume"):
        ACTIONS[action](runs, 0, run)
        time.sleep(0.05)
    broker.close()


def serve(task: Task, reporter: Reporter) -> None:
    """Work until TERM."""
    scenario = SCENARIOS[task.scenario]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for all threads to come
    if scenario.keeps:
        hurry_keeper()
    broker = make_broker(task, reporter)
    worker = dramatiq.Worker(broker, worker_threads=scenario.threads, worker_timeout=100)
    worker.start()
    signal.sigwait({signal.SIGTERM})
    worker.stop(timeout=100)
    broker.close()


_ROLES = {"starter": start, "producer": produce, "worker": serve, "doomed": serve, "steerer": steer}


class Zygote:
    """The side of a lane: asks the zygote for processes.  The zygote forks them, and has no threads itself."""

    def __init__(self, pipe: int) -> None:
        mine, its = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            mine.close()
            try:
                _zygote(its, pipe)
            finally:
                os._exit(0)
        its.close()
        self._file = mine.makefile("rwb")
        mine.close()

    def fork(self, task: Task) -> int:
        """Fork a process; its id, which is not given to another one before :meth:`poll` has told its end."""
        return int(self._ask({"fork": attrs.asdict(task)}))

    def poll(self, pid: int) -> int | None:
        """The exit code (minus the signal) of a process; None while it lives."""
        answer = self._ask({"poll": pid})
        return None if answer is None else int(answer)

    def close(self) -> None:
        """End the zygote and all its processes."""
        self._file.close()
        os.waitpid(self.pid, 0)

    def _ask(self, request: dict[str, Any]) -> Any:
        self._file.write(json.dumps(request).encode() + b"\n")
        self._file.flush()
        return json.loads(self._file.readline())


def _zygote(connection: socket.socket, pipe: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    children: set[int] = set()
    codes: dict[int, int] = {}
    with connection.makefile("rwb") as file:
        for line in file:
            request = json.loads(line)
            answer: int | None = None
            if "fork" in request:
                answer = _fork(Task(**request["fork"]), pipe, connection)
                children.add(answer)
                codes.pop(answer, None)
            else:
                if request["poll"] in children:
                    pid, status = os.waitpid(request["poll"], os.WNOHANG)
                    if pid:
                        children.discard(pid)
                        codes[pid] = os.waitstatus_to_exitcode(status)
                answer = codes.get(request["poll"])
            file.write(json.dumps(answer).encode() + b"\n")
            file.flush()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _fork(task: Task, pipe: int, connection: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.close(connection.fileno())
        log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        _log(task)
        _ROLES[task.role](task, Reporter(pipe, task))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _log(task: Task) -> None:
    import logging

    level = logging.DEBUG if task.verbose else logging.INFO
    logging.basicConfig(
        level=level, format=f"{task.role:8} %(asctime)s %(threadName)s %(name)s %(message)s", force=True
    )
    for name in ("asyncio", "redis"):
        logging.getLogger(name).setLevel(logging.WARNING)


def mend(path: str) -> None:
    """Say that what failed is mended."""
    Path(path).touch()


__all__ = ["Task", "Zygote", "mend", "run_id"]
