"""Many random workflows at once, on two Ruby and two Python workers.

INTEROP_WORKFLOWS is how many (300), INTEROP_SEED which ones (printed with a failure).
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections import defaultdict
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Job, SidekiqBroker, Workflow
from interop.tests.processes import EVENTS, Site
from interop.tests.workflows import CARRIED, LANGUAGES, as_messages, start_in_ruby
from tests.trees import Shape, build, random_shape, violations

NUMBER = int(os.environ.get("INTEROP_WORKFLOWS", "300"))
SEED = int(os.environ.get("INTEROP_SEED", "20261124"))

#: Keys that Sidekiq itself keeps for good, and the record of the tests.
FOREVER = re.compile(r"queues|processes|stat:(processed|failed)|" + EVENTS)


def shape_of(rng: random.Random) -> Shape:
    """A random tree, seldom of less than three jobs."""
    while True:
        shape = random_shape(rng, 4)
        _, count = build(shape, lambda n: Job("any", n))
        if count < 3 and rng.random() < 0.95:
            continue
        # A last step says when all is done, where trailing empty nodes would not.
        return ("chain", [shape, "job"]) if "[]" in json.dumps(shape) or rng.random() < 0.8 else shape


def value_of(rng: random.Random, depth: int = 2) -> Any:
    kind = rng.randrange(8 if depth else 6)
    if kind == 6:
        return [value_of(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {f"k{i}": value_of(rng, depth - 1) for i in range(rng.randrange(4))}
    scalars = (None, rng.random() < 0.5, rng.randrange(-(2**80), 2**80), rng.uniform(-1e9, 1e9), rng.randrange(9))
    return "".join(chr(rng.choice((65, 233, 8232, 9731, 128640))) for _ in range(5)) if kind == 5 else scalars[kind]


class Random:
    """One workflow: its tree, and what must be in its run's memory at the end."""

    def __init__(self, rng: random.Random) -> None:
        self.starter = rng.choice(LANGUAGES)
        self.shape = shape_of(rng)
        self.memory: dict[str, Any] = {}
        self.names: dict[int, str] = {}
        self.run_id = ""

        def job(n: int) -> Job:
            name = self.names[n] = rng.choice(("Rb::Step", "Rb::Step", "Py::Step", CARRIED))
            # Some steps say their queue; for others it is known of the class.
            options = {"queue": "ruby"} if name == "Rb::Step" and rng.random() < 0.5 else {}
            if rng.random() < 0.3:
                return Job(name, n, **options)
            self.memory[f"step {n}"] = value_of(rng)
            return Job(name, n, {"return": {f"step {n}": self.memory[f"step {n}"]}}, **options)

        self.tree, self.count = build(self.shape, job)

    def problems(self, site: Site, events: list[dict[str, Any]]) -> list[str]:
        """What went wrong, given all executions of its run."""
        steps = [e for e in events if e["args"]]  # without the jobs that only wait
        found = []
        ran = sorted(e["args"][0] for e in steps)
        if ran != list(range(self.count)):
            found.append(f"{self.count} steps, and these ran: {ran}")
        found += [f"{e['outcome']}: {e.get('error')}" for e in events if e["outcome"] != "done"]
        found += [
            f"step {e['args'][0]} is {self.names[e['args'][0]]} and ran in {e['language']}"
            for e in steps
            if e["language"] != ("ruby" if self.names[e["args"][0]].startswith("Rb::") else "python")
        ]
        times = sorted((e[what], what, e["args"][0]) for e in steps for what in ("start", "end"))
        found += violations(self.shape, self.count, [(what, n) for _, what, n in times])
        memory = site.memory(self.run_id)
        if json.dumps(memory, sort_keys=True) != json.dumps(self.memory, sort_keys=True):
            found.append(f"memory {memory} in place of {self.memory}")
        return [f"run {self.run_id} of {self.shape}, started by {self.starter}: {problem}" for problem in found]


@pytest.mark.timeout(280)
def test_random_workflows(site: Site, broker: SidekiqBroker) -> None:
    rng = random.Random(SEED)
    workflows = [Random(rng) for _ in range(NUMBER)]
    total = sum(workflow.count for workflow in workflows)
    print(f"{NUMBER} workflows of {total} steps, seed {SEED}")
    for _ in range(2):
        site.ruby_worker(poll=0.1)
        site.python_worker(poll=50)

    of_ruby = [w for w in workflows if w.starter == "ruby"]
    errors: list[BaseException] = []

    def start_ruby() -> None:
        try:
            for workflow, run_id in zip(of_ruby, start_in_ruby(site, broker, [w.tree for w in of_ruby])):
                workflow.run_id = run_id
        except BaseException as e:
            errors.append(e)

    ruby = threading.Thread(target=start_ruby)
    ruby.start()
    for workflow in workflows:
        if workflow.starter == "python":
            workflow.run_id = Workflow(as_messages(broker, workflow.tree), broker).run()
    ruby.join()
    assert errors == []

    waiting = [key for name in ("ruby", "python", "default", "critical") for key in (f"queue:{name}",)]

    def at_rest() -> bool:
        return (
            len([e for e in site.events() if e["args"]]) >= total
            and not any(map(site.client.llen, waiting))
            and not any(map(site.client.zcard, ("schedule", "retry")))
        )

    site.eventually(lambda: site.client.llen(EVENTS) >= total and at_rest(), f"{total} steps", seconds=200)
    site.stop()

    by_run: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in site.events():
        by_run[event["run_id"]].append(event)
    problems = [problem for workflow in workflows for problem in workflow.problems(site, by_run[workflow.run_id])]
    assert problems == []
    assert {e["language"] for e in site.events()} == set(LANGUAGES)
    assert sum(map(len, by_run.values())) == site.client.llen(EVENTS)

    left = {key.decode() for key in site.client.scan_iter() if site.client.ttl(key) == -1}
    assert {key for key in left if not FOREVER.fullmatch(key)} == set()
