"""All measures, at their full or quick sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from . import boot, job_measures, workflow_measures
from .measures import Figure, Figures, Measure, Scene
from .peers import PEERS, DramatiqRedis, DramatiqWorkflow, SidekiqFlow
from .ruby_peers import RUBY_PEERS, Sidekiq8

RATE = {"rate": Figure("rate", "jobs/s", higher_is_better=True)}
LONGEST = {"longest": Figure("longest command", "ms")}
STEPS = Figure("rate", "steps/s", higher_is_better=True)
STEP = {"step": Figure("time a step", "ms")}
MEMBER = {"member": Figure("time a member", "us")}
PART = {
    "part": Figure("part of what is possible", "x", higher_is_better=True),
    "bare": Figure("bare threads: part of the nominal time", "x", higher_is_better=True),
}

OURS = SidekiqFlow.name
RUBY = frozenset(peer.name for peer in RUBY_PEERS)
ALL = frozenset(peer.name for peer in PEERS) | RUBY
#: dramatiq-workflow adds nothing to a job without a workflow.
JOBS = ALL - {DramatiqWorkflow.name}
ONE_RUBY = frozenset({OURS, Sidekiq8.name})


class _Catalogue:
    """Collects the measures of a run.

    Parameters:
      quick: Whether the sizes are small, and each measure has two rounds at most.
    """

    def __init__(self, quick: bool) -> None:
        self._quick = quick
        self.found: list[Measure] = []

    def size(self, full: int, quick: int) -> int:
        return quick if self._quick else full

    def add(
        self,
        name: str,
        title: str,
        figures: dict[str, Figure],
        take: Callable[[Scene], Figures],
        *,
        jobs: int = 1,
        rounds: int = 3,
        peers: Iterable[str] = ALL,
        needs: str | None = None,
        quick: bool = False,
        delayed: bool = False,
    ) -> None:
        if delayed:
            title += ", with 1 ms of latency"
        rounds = min(rounds, 2) if self._quick else rounds
        self.found.append(
            Measure(name, title, figures, jobs, rounds, take, frozenset(peers), needs, quick=quick, delayed=delayed)
        )

    def throughput(self) -> None:
        for name, jobs, processes, size in (
            ("throughput-1", self.size(20_000, 2_000), 1, 0),
            ("throughput-2", self.size(30_000, 2_000), 2, 0),
            ("throughput-10kb", self.size(5_000, 500), 1, 10_000),
        ):
            kind = "no-op jobs of 10 kB" if size else "no-op jobs"
            title = f"throughput: {jobs:,} {kind}, {processes} process{'es' if processes > 1 else ''}"
            take = partial(job_measures.throughput, jobs, processes, size)
            first = name == "throughput-1"
            self.add(name, title, RATE, take, jobs=jobs, rounds=5 if first else 3, peers=JOBS, quick=first)
        jobs = self.size(5_000, 500)
        take = partial(job_measures.throughput, jobs, 1, 0)
        self.add("throughput-1ms", f"throughput: {jobs:,} no-op jobs", RATE, take, jobs=jobs, peers=JOBS, delayed=True)

    def busy(self) -> None:
        for name, jobs, ms, threads, awaiting in (
            ("busy-10ms", self.size(2_000, 200), 10, 10, False),
            ("busy-100ms", self.size(300, 40), 100, 10, False),
            ("busy-async", self.size(4_000, 400), 100, 100, True),
        ):
            kind = "coroutines" if awaiting else "jobs"
            title = f"{jobs:,} {kind} of {ms} ms, {threads} at once"
            take = partial(job_measures.busy, jobs, ms, threads, awaiting)
            peers = {OURS, DramatiqRedis.name} if awaiting else JOBS - {"sidekiq-7"}
            self.add(name, title, PART, take, jobs=jobs, peers=peers)

    def producers(self) -> None:
        jobs = self.size(5_000, 500)
        take = partial(job_measures.send, jobs)
        self.add("send", f"send(), one by one: {jobs:,}", RATE, take, jobs=jobs, rounds=5, peers=JOBS, quick=True)
        jobs = self.size(20_000, 2_000)
        for name, call, messages in (
            ("bulk-actor", "actor.send_many()", False),
            ("bulk-broker", "broker.enqueue_many()", True),
        ):
            title = f"{call} of {jobs:,} jobs, against perform_bulk"
            take = partial(job_measures.bulk, jobs, messages)
            self.add(name, title, RATE | LONGEST, take, jobs=jobs, rounds=5, peers=RUBY | {OURS}, quick=True)

    def idle(self) -> None:
        jobs = self.size(100, 15)
        title = f"idle latency: {jobs} jobs at gaps of 0.05 to 0.3 s (costs include the idle polling)"
        figures = {"p50": Figure("p50", "ms"), "p99": Figure("p99", "ms")}
        take = partial(job_measures.latency, jobs)
        self.add("latency", title, figures, take, jobs=jobs, peers=JOBS, quick=True)
        seconds = self.size(15, 5)
        take = partial(job_measures.idle, seconds)
        title = "idle worker: costs a second (instead of costs a job)"
        self.add("idle", title, {"load": Figure("network reads", "a second")}, take, jobs=seconds, rounds=2, peers=JOBS)
        figures = {"import": Figure("import", "ms"), "rss": Figure("memory of an idle worker", "MB")}
        peers = {OURS, DramatiqRedis.name}
        self.add("boot", "imports, and an idle worker", figures, boot.boot, rounds=5, peers=peers)
        waiting, jobs = self.size(1_000_000, 50_000), self.size(100_000, 5_000)
        title = f"backlog of {waiting:,}: memory after {jobs:,} jobs, and growth since {jobs // 10:,}"
        figures = {"growth": Figure("growth", "x"), "rss": Figure("memory", "MB")}
        take = partial(job_measures.backlog, waiting, jobs)
        self.add("backlog", title, figures, take, jobs=jobs, rounds=1, peers=ONE_RUBY)

    def chains(self) -> None:
        for steps, repeats, rounds, peers in (
            (10, 10, 5, ALL),
            (100, 3, 5, ALL),
            (1_000, 1, 3, ALL),
            (10_000, 1, 1, {OURS}),
        ):
            take = partial(workflow_measures.chain, steps, repeats, 0)
            title = f"chain of {steps:,} no-op steps"
            quick = steps < 1000
            self.add(f"chain-{steps}", title, STEP, take, jobs=steps, rounds=rounds, peers=peers, quick=quick)
        take = partial(workflow_measures.chain, 20, 5, 10_000)
        self.add("chain-10kb", "chain of 20 no-op steps of 10 kB", STEP, take, jobs=20)
        count = self.size(100, 20)
        take = partial(workflow_measures.chains, count, 50)
        title = f"{count} chains of 50 no-op steps, side by side"
        peers = RUBY | {OURS, DramatiqWorkflow.name}
        self.add("chains", title, {"rate": STEPS}, take, jobs=count * 50, peers=peers)
        steps = self.size(1_000, 200)
        take = partial(workflow_measures.mixed, steps, 100)
        title = f"chain of {steps:,} no-op steps, each hundredth in Ruby"
        self.add("chain-mixed", title, STEP, take, jobs=steps, peers={OURS}, needs=Sidekiq8.name)
        for steps in (100, 1_000):
            take = partial(workflow_measures.mixed, steps, 2)
            title = f"chain of {steps:,} no-op steps, each second in Ruby"
            self.add(f"chain-mixed-{steps}", title, STEP, take, jobs=steps, peers={OURS}, needs=Sidekiq8.name)
        take = partial(workflow_measures.chain, 100, 3, 0)
        title = "chain of 100 no-op steps"
        self.add("chain-1ms", title, STEP, take, jobs=100, peers=RUBY | {OURS}, delayed=True)

    def groups(self) -> None:
        start = {"start": Figure("time to start", "ms"), **LONGEST}
        for jobs, repeats, rounds, peers in (
            (1_000, 3, 5, ALL),
            (10_000, 1, 3, ALL),
            (100_000, 1, 1, {OURS}),
        ):
            take = partial(workflow_measures.group, jobs, repeats)
            title = f"group of {jobs:,}, until run() has returned"
            quick = jobs < 10_000
            self.add(f"group-{jobs}", title, start, take, jobs=jobs, rounds=rounds, peers=peers, quick=quick)
        jobs = self.size(20_000, 2_000)
        take = partial(workflow_measures.members, jobs)
        title = f"members of a group of {jobs:,}, workers only"
        self.add("members-1", title, MEMBER, take, jobs=jobs, peers=RUBY | {OURS, DramatiqWorkflow.name}, quick=True)
        jobs = self.size(5_000, 500)
        take = partial(workflow_measures.members, jobs)
        title = f"members of a group of {jobs:,}, workers only"
        self.add("members-1ms", title, MEMBER, take, jobs=jobs, peers=RUBY | {OURS}, delayed=True)
        jobs = self.size(10_000, 1_000)
        take = partial(workflow_measures.members, jobs)
        # The join is compared with a group of its size, in which the first jobs of a process weigh the same.
        title = f"members of a group of {jobs:,}, workers only"
        self.add("members-10000", title, MEMBER, take, jobs=jobs, peers={OURS})
        take = partial(workflow_measures.join, jobs)
        title = f"members of a group of {jobs:,} and the step behind it, until that has started"
        self.add("join", title, MEMBER, take, jobs=jobs, peers=RUBY | {OURS})
        step = {"step": Figure("time a step", "us"), **LONGEST}
        for jobs, rounds, peers in ((10_000, 2, ALL), (100_000, 1, {OURS})):
            take = partial(workflow_measures.fan_out, jobs)
            title = f"a step, then a group of {jobs:,}, until the last step has started"
            self.add(f"fanout-{jobs}", title, step, take, jobs=jobs, rounds=rounds, peers=peers)


def measures(quick: bool) -> list[Measure]:
    """All measures, at their full or quick sizes."""
    catalogue = _Catalogue(quick)
    catalogue.throughput()
    catalogue.busy()
    catalogue.producers()
    catalogue.idle()
    catalogue.chains()
    catalogue.groups()
    return catalogue.found
