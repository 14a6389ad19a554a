"""Run a workflow and watch it while a worker is killed in the middle.

    python examples/demo.py

Starts an embedded server and two `dramatiq` workers, runs
chain(task1, group(task2, task3), task4), kills one worker with -9 while the
group runs, and proves that the order still holds and that each step was
enqueued once. If not, it names the violation and exits 1.

`--sabotage early` and `--sabotage twice` break the workflow on purpose, to
show that the proof fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import redis

from dramatiq_sidekiq_flow.embedded import EmbeddedServer

HERE = Path(__file__).parent
TIMEOUT = 60.0
ORDER = [("task1", "task2"), ("task1", "task3"), ("task2", "task4"), ("task3", "task4")]
TASKS = ("task1", "task2", "task3", "task4")
COLORS = {"start": "36", "end": "32", "kill": "31", "good": "32;1", "bad": "31;1", "dim": "2"}

Event = dict[str, Any]


def paint(text: str, color: str) -> str:
    return f"\033[{COLORS[color]}m{text}\033[0m" if sys.stdout.isatty() else text


class Demo:
    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log
        self.client = redis.Redis.from_url(url)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.events: list[Event] = []
        self.killed: str | None = None
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"  {time.monotonic() - self.began:5.2f} s  {text}", flush=True)

    def start_worker(self, name: str) -> None:
        # One thread and one job in flight, so the two jobs of the group run on both workers.
        command = [sys.executable, "-m", "dramatiq", "demo_app", "--path", str(HERE), "-p", "1", "-t", "1"]
        environment = {**os.environ, "REDIS_URL": self.url, "WORKER": name, "dramatiq_queue_prefetch": "1"}
        # Ctrl-C between the start and the record of it would leave a worker that stop() does not know.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with self.log.open("ab") as log:
                self.workers[name] = subprocess.Popen(
                    command,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, held),
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def kill_worker(self, name: str) -> None:
        os.killpg(self.workers[name].pid, signal.SIGKILL)
        self.workers[name].wait()
        self.killed = name

    def stop(self) -> None:
        for process in self.workers.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def wait_for(self, what: str, condition: Any) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {TIMEOUT:.0f} s for {what}")
            time.sleep(0.01)

    def observe(self) -> None:
        """Show the events since the last call."""
        for raw in self.client.lrange("demo:events", len(self.events), -1):
            event = json.loads(raw)
            earlier = [e for e in self.events if e["what"] == "start" and e["task"] == event["task"]]
            self.events.append(event)
            note = f"in memory: {', '.join(event['memory']) or 'nothing yet'}"
            if event["what"] == "end":
                note = f"returns {event['returns']}"
            elif earlier and earlier[0]["jid"] == event["jid"]:
                note = "again: its worker died"
            elif earlier:
                note = "a second time, as another job"
            what = paint(f"{event['what']:5}", event["what"])
            self.say(f"{event['task']}  {what}  on worker {event['worker']}   {paint(note, 'dim')}")

    def started(self, task: str) -> Event | None:
        return next((e for e in self.events if e["what"] == "start" and e["task"] == task), None)

    def ended(self, task: str) -> bool:
        return any(e["what"] == "end" and e["task"] == task for e in self.events)


def violations(events: list[Event], memory: dict[str, str]) -> list[str]:
    """Violations found in the observed events."""
    wrong = []
    first_start: dict[str, int] = {}
    first_end: dict[str, int] = {}
    jobs: dict[str, set[str]] = {task: set() for task in TASKS}
    for place, event in enumerate(events):
        (first_start if event["what"] == "start" else first_end).setdefault(event["task"], place)
        jobs[event["task"]].add(event["jid"])
    for task in TASKS:
        if task not in first_end:
            wrong.append(f"{task} never ended: a continuation was lost")
        if len(jobs[task]) > 1:
            wrong.append(f"{task} was enqueued {len(jobs[task])} times: a continuation was doubled")
        if task not in memory:
            wrong.append(f"the memory has nothing of {task}")
    for before, after in ORDER:
        if first_start.get(after, len(events)) < first_end.get(before, len(events)):
            wrong.append(f"{after} started before {before} had ended")
    return wrong


def run(demo: Demo, sabotage: str | None) -> int:
    print(paint("chain(task1, group(task2, task3), task4)", "good"))
    print(f"  server   {demo.url} (embedded; its data is thrown away)")
    for name in ("A", "B"):
        demo.start_worker(name)
        print(f"  worker   {name}: dramatiq demo_app, pid {demo.workers[name].pid}")
    demo.wait_for("the workers", lambda: demo.client.zcard("swf:workers") == 2)

    os.environ.update(REDIS_URL=demo.url, WORKER="none")
    sys.path.insert(0, str(HERE))
    from demo_app import broker, task1, task2, task3, task4

    from dramatiq_sidekiq_flow import Chain, Group, Runs, Workflow

    demo.began = time.monotonic()
    tree = Chain(task1.message(), Group(task2.message(), task3.message()), task4.message())
    run_id = Workflow(tree).run()
    demo.say(f"run {run_id} started")
    if sabotage:
        last = "task1" if sabotage == "early" else "task4"

        def ended() -> Any:
            demo.observe()
            return demo.ended(last)

        demo.wait_for("task1", ended)
        Workflow(task4.message()).run(run_id + "-sabotage")
        demo.say(paint("sabotage: task4 is enqueued by hand", "kill"))

    def over() -> bool:
        demo.observe()
        victim = demo.started("task3")
        in_group = demo.started("task2") and not demo.ended("task3")
        if victim and in_group and demo.killed is None and not sabotage and time.time() > victim["at"] + 0.3:
            name = victim["worker"]
            demo.kill_worker(name)
            demo.say(paint(f"kill -9 worker {name}, in the middle of task3", "kill"))
        finished = all(map(demo.ended, TASKS))
        busy = demo.client.llen("queue:demo") or any(
            demo.client.hlen(key) for key in demo.client.keys("swf:inflight:*")
        )
        return finished and not busy

    demo.wait_for("the workflow", over)
    found: dict[Any, Any] = demo.client.hgetall(f"swf:mem:{run_id}")
    memory = {k.decode(): v.decode() for k, v in found.items()}
    fields = [f"{name}: {value}" for name, value in sorted(memory.items())]
    print(f"  memory   {', '.join(fields[:2])},")
    print(f"           {', '.join(fields[2:])}")
    print(textwrap.indent(str(Runs(broker).get(run_id)), "  "))
    wrong = violations(demo.events, memory)
    if not sabotage and demo.killed is None:
        wrong.append("no worker was killed: the demo has proved nothing")
    for text in wrong:
        print(paint(f"VIOLATION: {text}", "bad"))
    if wrong:
        return 1
    print(paint("OK: in order, each step enqueued once, though a worker was killed.", "good"))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sabotage", choices=["early", "twice"], help="break the order, to see the proof fail")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer() as server:
        demo = Demo(server.url, Path(folder) / "workers.log")
        try:
            return run(demo, arguments.sabotage)
        except TimeoutError as e:
            print(paint(f"VIOLATION: {e}", "bad"))
            print(demo.log.read_text("utf-8", "replace")[-3000:])
            return 1
        finally:
            demo.stop()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped")
        sys.exit(130)
