"""What is measured: each measure takes one sample of one peer.

Each begins with an empty server and, where it needs one, a worker process of
its own.  Times are taken with the monotonic clock, which processes of one
machine share.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import attrs

from .peers import Peer
from .process import WorkerProcess
from .server import Server

Figures = dict[str, float]


@attrs.frozen
class Figure:
    """One number of a measure: what it counts and which way is better."""

    title: str
    unit: str
    higher_is_better: bool = False


#: Taken where a measure has them; the measure's own figures come first.
COSTS = {
    "reads": Figure("network reads", "per job"),
    "commands": Figure("commands", "per job"),
    "bytes_in": Figure("bytes in", "per job"),
    "bytes_out": Figure("bytes out", "per job"),
    "cpu": Figure("worker CPU", "us per job"),
}


@attrs.frozen
class Scene:
    """A peer before an empty server, in one round."""

    server: Server
    peer: Peer
    round: int

    @contextmanager
    def worker(self) -> Iterator[WorkerProcess]:
        """A worker that consumes and is warm: connected, scripts loaded."""
        with WorkerProcess(type(self.peer), self.server.url) as worker:
            worker.expect(3)
            worker.start()
            self.peer.chain(self.peer.messages(3))
            worker.wait()
            yield worker


@attrs.frozen
class Measure:
    """A measure at one size.

    Attributes:
      take: Takes a sample.
      quick: Whether it is part of the quick run.
    """

    name: str
    title: str
    figures: dict[str, Figure]
    jobs: int
    rounds: int
    take: Callable[[Scene], Figures]
    quick: bool = True


def throughput(jobs: int, scene: Scene) -> Figures:
    """No-op jobs from a full queue: from the first start to the last acknowledgement."""
    with WorkerProcess(type(scene.peer), scene.server.url) as worker:
        worker.expect(jobs)
        for index in range(jobs):
            scene.peer.step.send(index)
        with scene.server.traffic(jobs) as traffic:
            worker.start()
            report = worker.wait()
    rate = jobs / (report["last_ack"] - report["first_start"])
    return {"rate": rate, **traffic, "cpu": report["cpu"] / jobs * 1e6}


def send(jobs: int, scene: Scene) -> Figures:
    """Jobs sent one by one, without a consumer."""
    step = scene.peer.step
    for index in range(20):
        step.send(index)
    gc.collect()
    with scene.server.traffic(jobs) as traffic:
        began = time.monotonic()
        for index in range(jobs):
            step.send(index)
        seconds = time.monotonic() - began
    return {"rate": jobs / seconds, **traffic}


def latency(jobs: int, scene: Scene) -> Figures:
    """From just before send() to the start of the actor, with an idle worker."""
    # The same gaps for each peer of a round.
    gaps = random.Random(scene.round)
    sent: list[float] = []
    with scene.worker() as worker:
        worker.expect(jobs)
        with scene.server.traffic(jobs) as traffic:
            for index in range(jobs):
                time.sleep(gaps.uniform(0.05, 0.3))
                sent.append(time.monotonic())
                scene.peer.step.send(index)
            report = worker.wait()
    waits = [(report["starts"][str(index)] - sent[index]) * 1000 for index in range(jobs)]
    percentiles = statistics.quantiles(waits, n=100, method="inclusive")
    return {"p50": percentiles[49], "p99": percentiles[98], **traffic}


def chain(steps: int, repeats: int, scene: Scene) -> Figures:
    """No-op steps one after the other: from before run() to the start of the last."""
    taken: list[float] = []
    with scene.worker() as worker, scene.server.traffic(steps * repeats) as traffic:
        for _ in range(repeats):
            messages = scene.peer.messages(steps)
            worker.expect(steps)
            began = time.monotonic()
            scene.peer.chain(messages)
            taken.append(worker.wait(ordered=True)["last_start"] - began)
    return {"step": statistics.median(taken) / steps * 1000, **traffic}


def group(jobs: int, repeats: int, scene: Scene) -> Figures:
    """From before a group is made until run() has returned: all its jobs are pushed."""
    taken: list[float] = []
    scene.peer.group(scene.peer.messages(2))
    with scene.server.longest() as longest, scene.server.traffic(jobs * repeats) as traffic:
        for _ in range(repeats):
            messages = scene.peer.messages(jobs)
            gc.collect()
            began = time.monotonic()
            scene.peer.group(messages)
            taken.append(time.monotonic() - began)
    if (waiting := scene.server.length(scene.peer.queue)) != jobs * repeats + 2:
        raise AssertionError(f"{waiting:,} jobs wait instead of {jobs * repeats + 2:,}")
    return {"start": statistics.median(taken) * 1000, **longest, **traffic}


def fan_out(jobs: int, scene: Scene) -> Figures:
    """A step and a group of no-op jobs behind it: from before run() to the start of the last job."""
    with scene.worker() as worker:
        messages = scene.peer.messages(jobs)
        worker.expect(jobs)
        gc.collect()
        with scene.server.longest() as longest, scene.server.traffic(jobs) as traffic:
            began = time.monotonic()
            scene.peer.fan_out(messages[0], messages[1:])
            report = worker.wait()
    return {"job": (report["last_start"] - began) / jobs * 1e6, **longest, **traffic}


def measures(quick: bool) -> list[Measure]:
    """All measures, at their full or quick sizes."""

    def rounds(full: int) -> int:
        return min(full, 2) if quick else full

    throughput_jobs, send_jobs, latency_jobs = (2_000, 500, 15) if quick else (20_000, 5_000, 100)
    rate = {"rate": Figure("rate", "jobs/s", higher_is_better=True)}
    step = {"step": Figure("time a step", "ms")}
    start = {"start": Figure("time to start", "ms"), "longest": Figure("longest command", "ms")}
    found = [
        Measure(
            "throughput",
            f"throughput: {throughput_jobs:,} no-op jobs, one process, 8 threads",
            rate,
            throughput_jobs,
            rounds(5),
            partial(throughput, throughput_jobs),
        ),
        Measure("send", f"send(), one by one: {send_jobs:,}", rate, send_jobs, rounds(5), partial(send, send_jobs)),
        Measure(
            "latency",
            f"idle latency: {latency_jobs} jobs at gaps of 0.05 to 0.3 s (costs include the idle polling)",
            {"p50": Figure("p50", "ms"), "p99": Figure("p99", "ms")},
            latency_jobs,
            rounds(3),
            partial(latency, latency_jobs),
        ),
    ]
    for steps, repeats, full in ((10, 10, 5), (100, 3, 5), (1000, 1, 3)):
        title = f"chain of {steps:,} no-op steps"
        take = partial(chain, steps, repeats)
        found.append(Measure(f"chain-{steps}", title, step, steps, rounds(full), take, quick=steps < 1000))
    for jobs, repeats, full in ((1000, 3, 5), (10_000, 1, 3), (100_000, 1, 1)):
        title = f"group of {jobs:,}, until run() has returned"
        take = partial(group, jobs, repeats)
        found.append(Measure(f"group-{jobs}", title, start, jobs, rounds(full), take, quick=jobs < 10_000))
    member = {"job": Figure("time a job", "us"), "longest": Figure("longest command", "ms")}
    for jobs, full in ((10_000, 3), (100_000, 1)):
        title = f"a step, then a group of {jobs:,}, until the last job has started"
        found.append(Measure(f"fanout-{jobs}", title, member, jobs, rounds(full), partial(fan_out, jobs), quick=False))
    return found
