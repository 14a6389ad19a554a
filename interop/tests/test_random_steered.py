"""Random runs of both languages whose steps die and are replaced, started by either, and steered at random moments.

On Sidekiq 7 with the companion, and on Sidekiq 8 with the plain gem, unless INTEROP_STEERED says how many runs there
are: then with both.  INTEROP_SEED says which runs (printed with a failure).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from dramatiq_sidekiq_flow import Catch, Chain, Group, Job, MayFail, Runs, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests import companions
from interop.tests.processes import Site
from interop.tests.workflows import CARRIED, as_messages, start_in_ruby
from tests.trees import Shape, build, violations

NUMBER = int(os.environ.get("INTEROP_STEERED") or 0)
SEED = int(os.environ.get("INTEROP_SEED", "20261127"))

#: Ruby without and with the companion.
RUBIES = (
    ("plain", "companion") if NUMBER else ("plain",) if os.environ.get("INTEROP_SIDEKIQ") == "8" else ("companion",)
)

#: What a leaf of a tree is; Ruby's own workflows have the first ones only.
KINDS = ("ruby", "ruby", "python", "carried", "grows", "may fail", "dies", "mends")
OF_RUBY = 5

#: Seconds after a cancellation in which a step may still start, on a busy machine.
KNOWN = 1.5


@attrs.define
class Random:
    """One run.

    Attributes:
      starter: The language that starts it.
      tree, shape: What is started, and the shape of what runs.
      dead, mended: Steps that are dead in the end, or once.
      steered: What is done to it: "", "pause" or "cancel".
      cancelled_at: Seconds since the epoch.
    """

    rng: random.Random
    starter: str = attrs.field(init=False)
    tree: Any = attrs.field(init=False)
    shape: Shape = attrs.field(init=False)
    steered: str = attrs.field(init=False)
    dead: set[int] = attrs.field(factory=set)
    mended: set[int] = attrs.field(factory=set)
    run_id: str = ""
    cancelled_at: float = float("inf")
    numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        self.starter = self.rng.choice(["ruby", "python", "python"])
        self.steered = self.rng.choice(["", "pause", "pause", "cancel"])
        parts = [self._node(2), self._node(2), self._node(3)]
        # A last step in Python records the end of the run.
        self.tree = Chain(*(node for node, _ in parts), Job(CARRIED, next(self.numbers)))
        self.shape = ("chain", [*(shape for _, shape in parts), "job"])

    @property
    def count(self) -> int:
        return int(build(self.shape, lambda number: number, kinds=((lambda *parts: parts),) * 3)[1])

    def _node(self, depth: int) -> tuple[Any, Shape]:
        if not depth or self.rng.random() < 0.3:
            return self._leaf()
        kind = self.rng.choice(["chain", "group"])
        parts = [self._node(depth - 1) for _ in range(self.rng.randrange(1, 4))]
        return (Chain if kind == "chain" else Group)(*(node for node, _ in parts)), (kind, [one for _, one in parts])

    def _leaf(self) -> tuple[Any, Shape]:
        kind = self.rng.choice(KINDS[:OF_RUBY] if self.starter == "ruby" else KINDS)
        number = next(self.numbers)
        if kind == "grows":
            inner = [[self.rng.choice(["ruby", "python"]), next(self.numbers)] for _ in range(2)]
            return Job("docs.grow", number, inner), ("chain", ["job"] * 3)
        if kind in ("may fail", "dies", "mends"):
            return self._dying(kind, number)
        return Job({"ruby": "Rb::Step", "python": "Py::Step"}.get(kind, CARRIED), number), "job"

    def _dying(self, kind: str, number: int) -> tuple[Any, Shape]:
        (self.mended if kind == "mends" else self.dead).add(number)
        name = self.rng.choice(["Rb::DeadAtOnce", "Py::DeadAtOnce"])
        job = Job(name, number, {"fail": 1 if kind == "mends" else 9}, retry=0)
        if kind == "dies":
            return Catch(job, Job("Rb::Step", next(self.numbers))), ("chain", ["job", "job"])
        return MayFail(job) if kind == "may fail" else job, "job"

    def problems(self, runs: Runs, events: list[dict[str, Any]]) -> list[str]:
        """What went wrong, given all executions of its run."""
        steps = [event for event in events if event["args"]]  # without the jobs that only wait
        run = runs.get(self.run_id)
        state = "cancelled" if self.cancelled_at < float("inf") else "done"
        found = [f"the record says {run.state}"] if run.state != state else []
        # A step that has failed, and is tried again by hand, waits until then.
        order = [(e[what], what, e["args"][0]) for e in steps for what in ("start", "end") if not self._fails(e)]
        ran = Counter(event["args"][0] for event in steps)
        found += violations(self.shape, self.count if state == "done" else 0, [(w, n) for _, w, n in sorted(order)])
        if state == "cancelled":
            late = [event for event in steps if event["start"] > self.cancelled_at + KNOWN]
            return found + [f"{event['args']} started after the cancellation" for event in late]
        if ran != Counter(range(self.count)) + Counter(self.mended):
            found.append(f"{self.count} steps, {self.mended} of them twice, and these ran: {sorted(ran.items())}")
        progress, dead = run.progress, len(self.dead)
        # The record of a run that Ruby starts has no tree.
        if self.starter == "python" and (progress.total, progress.done) != (self.count, self.count - dead):
            found.append(f"the record says {progress} of {self.count} steps, of which {dead} are dead")
        return found

    def _fails(self, event: dict[str, Any]) -> bool:
        return event["outcome"] == "failed" and event["args"][0] in self.mended


@contextlib.contextmanager
def workers(site: Site, folder: Path, kind: str) -> Iterator[None]:
    """A worker of each language."""
    site.python_worker()
    if kind == "plain":
        site.ruby_worker()
        yield
        return
    with companions.installed(folder, before=("steps.rb",)) as environment:
        companions.worker(site, INTEROP_PYTHON_CLASSES=",".join(site.stubs), **environment)
        yield


@pytest.mark.timeout(280)
@pytest.mark.parametrize("kind", RUBIES)
def test_random_runs_that_are_steered(
    server: EmbeddedServer, container: None, site: Site, broker: SidekiqBroker, tmp_path: Path, kind: str
) -> None:
    rng = random.Random(SEED)
    all_runs = [Random(rng) for _ in range(NUMBER or 12)]
    print(f"{len(all_runs)} runs, {sum(run.count for run in all_runs)} steps, seed {SEED}")
    runs = Runs(broker)
    with workers(site, tmp_path, kind):
        for run in all_runs:
            if run.starter == "python":
                run.run_id = Workflow(as_messages(broker, run.tree), broker).run()
        of_ruby = [run for run in all_runs if run.starter == "ruby"]
        for run, run_id in zip(of_ruby, start_in_ruby(site, broker, [run.tree for run in of_ruby])):
            run.run_id = run_id
        # Ruby with the plain gem tells what it works on each 10 seconds only: see test_pause.py and test_cancel.py.
        for run in all_runs if kind == "companion" or NUMBER else ():
            _steer(runs, run, rng)
        site.eventually(lambda: _is_over(site, runs, all_runs), "the end of all runs", seconds=200)
        by_run: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in site.events():
            by_run[event["run_id"]].append(event)
        problems = [
            f"run {run.run_id}, {run.starter}, {run.steered}, {run.shape}: {problem}"
            for run in all_runs
            for problem in run.problems(runs, by_run[run.run_id])
        ]
        assert problems == []
        site.stop()


def _steer(runs: Runs, run: Random, rng: random.Random) -> None:
    """Pause and resume a run, or cancel it, if it is known already."""
    if not run.steered or not list(runs.list(limit=1)) or not _is_known(runs, run):
        return
    if run.steered == "pause":
        runs.pause(run.run_id)
        time.sleep(rng.random() * 0.1)
        runs.resume(run.run_id)
    elif runs.cancel(run.run_id).state == "cancelled":
        run.cancelled_at = time.time()


def _is_known(runs: Runs, run: Random) -> bool:
    """Whether it has a record: a run that Ruby starts gets one with its first step in Python, or with the companion."""
    return any(known.id == run.run_id for known in runs.list(limit=1000))


def _is_over(site: Site, runs: Runs, all_runs: list[Random]) -> bool:
    """Whether all runs are done or cancelled; tries steps that are dead again."""
    runs.retry(state="failed")
    over = {run.id for state in ("done", "cancelled") for run in runs.list(state=state, limit=1000)}
    return {run.run_id for run in all_runs} <= over and not site.client.exists("queue:ruby", "queue:python", "retry")
