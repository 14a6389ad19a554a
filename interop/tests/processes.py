"""The processes of a two-language test: Ruby workers, Python workers, and Ruby programs that run and end.

Everything Ruby goes through container/run.sh. A worker that ends by itself is a
failure of whatever is waited for next, and its log is shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.redis_values import fields, raws
from tests.running import eventually

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RUN = ROOT / "interop" / "container" / "run.sh"
EVENTS = "interop:events"

#: Longest wait for a condition, in seconds: for a machine that has much else to do.
DEADLINE = 60.0


def ruby_environment(url: str, **more: str) -> dict[str, str]:
    """What run.sh hands on, and the steps of these tests beside those of jobs.rb."""
    steps = {"INTEROP_EXTRA": str(HERE / "ruby"), "INTEROP_REQUIRE": "/interop/extra/steps.rb"}
    return {**os.environ, "REDIS_URL": url, "INTEROP_QUIET": "1", **steps, **more}


def ruby(url: str, *command: str, stdin: str = "", timeout: float = DEADLINE, **more: str) -> str:
    """Run a Ruby program to its end; what it printed."""
    done = subprocess.run(
        [str(RUN), "ruby", *command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=ruby_environment(url, **more),
    )
    if done.returncode:
        raise AssertionError(f"ruby {' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Worker:
    """A worker process, in a session of its own, writing to a log file."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Fail where it has ended by itself."""
        if self.process.poll() is not None:
            raise AssertionError(f"the {self.name} worker ended with {self.process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def kill(self) -> None:
        """End it at once, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> None:
        """Ask it to finish its jobs and end."""
        self.process.terminate()

    def wait(self, seconds: float = DEADLINE) -> None:
        """Wait for its end.  One that does not come is a failure."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the {self.name} worker did not stop:\n{self.tail()}") from None


class Site:
    """One database of the server, and the workers that serve it."""

    def __init__(self, url: str, logs: Path, stubs: Sequence[str]) -> None:
        self.url = url
        self.logs = logs
        self.stubs = stubs
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.workers: list[Worker] = []
        self._started = 0
        self._lock = threading.Lock()

    # -- processes ------------------------------------------------------------

    def ruby_worker(
        self, *, poll: float = 0.1, queues: Sequence[str] = ("critical", "ruby", "default"), stubs: bool = True
    ) -> Worker:
        """Start Sidekiq.

        Parameters:
          poll: Seconds between two looks at schedule and retry; 0 for never.
          stubs: Whether Ruby has a constant for each actor whose name is one.
        """
        environment = ruby_environment(
            self.url,
            INTEROP_POLL=str(poll),
            INTEROP_RETRY_IN="1",
            INTEROP_TIMEOUT="10",
            # Cancel and pause wait for a beat, and the end of a test for idle threads.
            INTEROP_BEAT="1",
            INTEROP_BRPOP="0.5",
            INTEROP_PYTHON_CLASSES=",".join(self.stubs) if stubs else "",
        )
        options = [option for queue in queues for option in ("-q", queue)]
        return self._start("ruby", [str(RUN), "sidekiq", "-r", "./worker.rb", *options, "-c", "5"], environment)

    def python_worker(self, *, poll: int = 50, queues: Sequence[str] = ("python",), heartbeat: int = 60_000) -> Worker:
        """Start Dramatiq.

        Parameters:
          poll: Milliseconds between two looks at schedule and retry.
          heartbeat: Milliseconds of silence after which it is dead; it beats five times as often.
        """
        environment = {
            **os.environ,
            "REDIS_URL": self.url,
            "PYTHONPATH": str(ROOT),
            "INTEROP_PYTHON_POLL": str(poll),
            "INTEROP_PYTHON_QUEUES": ",".join(queues),
            "INTEROP_PYTHON_HEARTBEAT": str(heartbeat),
            # Milliseconds that an idle thread waits: a worker that is stopped waits for them.
            "dramatiq_worker_timeout": "100",
        }
        command = [sys.executable, "-m", "dramatiq", "app", "-p", "1", "-t", "4", "--path", str(HERE), "-Q", *queues]
        return self._start("python", command, environment)

    def _start(self, language: str, command: Sequence[str], environment: dict[str, str]) -> Worker:
        self._started += 1
        worker = Worker(language, command, environment, self.logs / f"{language}-{self._started}.log")
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """Stop all workers as a deployment does."""
        workers, self.workers = self.workers, []
        try:
            for worker in workers:
                worker.check()
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
        finally:
            for worker in workers:
                worker.kill()

    def close(self) -> None:
        """Leave nothing behind, whatever state a test is in."""
        for worker in self.workers:
            worker.kill()
        self.workers = []
        self.client.close()

    # -- Ruby's programs ------------------------------------------------------

    def api(self, *command: str) -> dict[str, Any]:
        """What a person does in Sidekiq's Web UI (api.rb)."""
        answer: dict[str, Any] = json.loads(ruby(self.url, "api.rb", *command))
        return answer

    # -- looking --------------------------------------------------------------

    def events(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """The executions of a run, or of all, in the order of their ends."""
        events = [json.loads(line) for line in self.client.lrange(EVENTS, 0, -1)]
        return [event for event in events if run_id is None or event["run_id"] == run_id]

    def members(self, name: str, run_id: str) -> list[dict[str, Any]]:
        """The jobs of a run in ``schedule``, ``retry`` or ``dead``."""
        jobs = [json.loads(member) for member in raws(self.client.zrange(name, 0, -1))]
        return [job for job in jobs if job.get("workflow_run_id") == run_id]

    def memory(self, run_id: str) -> dict[str, Any]:
        """A run's memory, as it stands in Redis."""
        found = self.client.hgetall(f"swf:mem:{run_id}")
        return {field: json.loads(value) for field, value in fields(found).items()}

    def barriers(self) -> dict[bytes, int]:
        """The counters of all barriers."""
        names = [key.removesuffix(b"_ran") for key in self.client.scan_iter("*_ran")]
        return {name: int(value) for name, value in zip(names, self.client.mget(names)) if value} if names else {}

    def eventually(self, condition: Callable[..., Any], what: str, seconds: float = DEADLINE) -> Any:
        """Wait until a condition holds, and for no longer than the workers live; its value."""

        def holds() -> Any:
            for worker in self.workers:
                worker.check()
            return condition()

        try:
            return eventually(holds, seconds, what)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.report()}") from None

    def report(self) -> str:
        """What there is to see when something did not happen."""
        sets = {name: self.client.zrange(name, 0, 9) for name in ("schedule", "retry", "dead")}
        names = self.client.scan_iter("queue:*", _type="list")
        queues = {key: self.client.lrange(key, 0, 9) for key in names}
        events = [
            f"{e['language']} {e['class']} {e['args']} {e['outcome']} {e.get('error', '')}" for e in self.events()[-20:]
        ]
        logs = [f"--- {worker.name} ({worker.log.name})\n{worker.tail()}" for worker in self.workers]
        return "\n".join(["last events:", *events, f"sets: {sets}", f"queues: {queues}", *logs])
