"""Measures of workflows."""

from __future__ import annotations

import statistics

from .measures import Figures, Scene, cpu
from .peers import SidekiqFlow
from .ruby_peers import Sidekiq8

#: Of the steps that belong to Ruby.
QUEUE = "bench_ruby"


def chain(steps: int, repeats: int, size: int, scene: Scene) -> Figures:
    """No-op steps one after the other: from before run() to the start of the last."""
    taken: list[float] = []
    used: list[Figures] = []
    with scene.warm() as workers, scene.server.traffic(steps * repeats) as traffic:
        for _ in range(repeats):
            workers.expect(steps)
            timed = scene.peer.chain(steps, size=size)
            report = workers.wait(ordered=True)
            taken.append(report.last_start - timed.began)
            used.append(cpu(report, steps))
    costs = {name: statistics.median(part[name] for part in used) for name in used[0]}
    return {"step": statistics.median(taken) / steps * 1000, **traffic, **costs}


def chains(count: int, steps: int, scene: Scene) -> Figures:
    """Chains that are started already, side by side: from the first start to the last acknowledgement."""
    jobs = count * steps
    for number in range(count):
        scene.peer.chain(steps, first=number * steps)
    with scene.cold() as workers:
        workers.expect(jobs)
        with scene.server.traffic(jobs) as traffic:
            workers.start()
            report = workers.wait()
    return {"rate": jobs / (report.last_ack - report.first_start), **traffic, **cpu(report, jobs)}


def mixed(steps: int, every: int, scene: Scene) -> Figures:
    """A chain with a Ruby step now and then, run by a worker of each language."""
    assert isinstance(scene.peer, SidekiqFlow)
    with scene.warm([Sidekiq8.worker(scene.url, 8, False, QUEUE)]) as workers:
        workers.expect(steps)
        with scene.server.traffic(steps) as traffic:
            timed = scene.peer.mixed(steps, every, QUEUE)
            report = workers.wait(ordered=True)
    return {"step": (report.last_start - timed.began) / steps * 1000, **traffic, **cpu(report, steps)}


def group(steps: int, repeats: int, scene: Scene) -> Figures:
    """From before a group is made until run() has returned: all its jobs are pushed."""
    scene.peer.group(2)
    with scene.server.longest() as longest, scene.server.traffic(steps * repeats) as traffic:
        taken = [scene.peer.group(steps).seconds for _ in range(repeats)]
    scene.server.check_length(scene.peer.queue, steps * repeats + 2)
    return {"start": statistics.median(taken) * 1000, **longest, **traffic}


def fan_out(steps: int, scene: Scene) -> Figures:
    """A step and a group of no-op steps behind it: from before run() to the start of the last step."""
    with scene.warm() as workers:
        workers.expect(steps)
        with scene.server.longest() as longest, scene.server.traffic(steps) as traffic:
            timed = scene.peer.fan_out(steps)
            report = workers.wait()
    return {"step": (report.last_start - timed.began) / steps * 1e6, **longest, **traffic, **cpu(report, steps)}


def members(steps: int, scene: Scene) -> Figures:
    """The members of a group that is pushed already: from the first start to the last acknowledgement."""
    scene.peer.group(steps)
    with scene.cold() as workers:
        workers.expect(steps)
        with scene.server.traffic(steps) as traffic:
            workers.start()
            report = workers.wait()
    return {"member": (report.last_ack - report.first_start) / steps * 1e6, **traffic, **cpu(report, steps)}


def join(steps: int, scene: Scene) -> Figures:
    """A group that is pushed already, and a step behind it: from the first start to the start of that step."""
    scene.peer.join(steps + 1)
    with scene.cold() as workers:
        workers.expect(steps + 1)
        with scene.server.traffic(steps) as traffic:
            workers.start()
            report = workers.wait()
    if report.indexes[-1] != steps:
        raise AssertionError("the step behind the group did not run last")
    return {"member": (report.last_start - report.first_start) / steps * 1e6, **traffic, **cpu(report, steps)}
