"""Measures of jobs without a workflow."""

from __future__ import annotations

import random
import statistics
import time
import uuid

from . import bare
from .measures import Figures, Scene, cpu

#: Jobs of a backlog that are pushed at once.
BATCH = 10_000


def throughput(jobs: int, processes: int, size: int, scene: Scene) -> Figures:
    """No-op jobs from a full queue: from the first start to the last acknowledgement."""
    scene.peer.send(jobs, size=size)
    with scene.cold(processes=processes) as workers:
        workers.expect(jobs)
        with scene.server.traffic(jobs) as traffic:
            workers.start()
            report = workers.wait()
    rate = jobs / (report.last_ack - report.first_start)
    return {"rate": rate, **traffic, **cpu(report, jobs)}


def busy(jobs: int, ms: int, threads: int, awaiting: bool, scene: Scene) -> Figures:
    """Jobs that take a time: the part of what bare threads do, from the first start to the last acknowledgement."""
    with scene.cold(threads=threads, awaiting=awaiting) as workers:
        scene.peer.send(jobs)
        workers.expect(jobs, ms=ms)
        with scene.server.traffic(jobs) as traffic:
            workers.start()
            report = workers.wait()
    possible = bare.possible(jobs, ms, threads, awaiting)
    part = possible / (report.last_ack - report.first_start)
    return {"part": part, "bare": jobs * ms / 1000 / threads / possible, **traffic, **cpu(report, jobs)}


def send(jobs: int, scene: Scene) -> Figures:
    """Jobs sent one by one, without a consumer."""
    scene.peer.send(20)
    with scene.server.traffic(jobs) as traffic:
        timed = scene.peer.send(jobs)
    return {"rate": jobs / timed.seconds, **traffic}


def bulk(jobs: int, messages: bool, scene: Scene) -> Figures:
    """Jobs sent with one call, without a consumer."""
    scene.peer.bulk(20, messages=messages)
    with scene.server.longest() as longest, scene.server.traffic(jobs) as traffic:
        timed = scene.peer.bulk(jobs, messages=messages)
    scene.server.check_length(scene.peer.queue, jobs + 20)
    return {"rate": jobs / timed.seconds, **longest, **traffic}


def latency(jobs: int, scene: Scene) -> Figures:
    """From just before send() to the start of the actor, with an idle worker."""
    # The same gaps for each contender of a round.
    gaps = random.Random(scene.round)
    sent: list[float] = []
    with scene.warm() as workers:
        workers.expect(jobs)
        with scene.server.traffic(jobs) as traffic:
            for index in range(jobs):
                time.sleep(gaps.uniform(0.05, 0.3))
                sent.append(scene.peer.send(1, first=index).began)
            report = workers.wait()
    waits = [(report.starts[index] - sent[index]) * 1000 for index in range(jobs)]
    percentiles = statistics.quantiles(waits, n=100, method="inclusive")
    return {"p50": percentiles[49], "p99": percentiles[98], **traffic}


def idle(seconds: int, scene: Scene) -> Figures:
    """A worker that has nothing to do: its costs a second."""
    with scene.warm(), scene.server.traffic(seconds) as traffic:
        time.sleep(seconds)
    return {"load": traffic["reads"], **traffic}


def backlog(waiting: int, jobs: int, scene: Scene) -> Figures:
    """The worker's memory when it has run some jobs of a large backlog, and when it has run ten times as many."""
    scene.peer.send(1)
    _multiply(scene, waiting)
    with scene.cold() as workers:
        workers.expect(jobs // 10, record=False)
        workers.start()
        workers.wait_acked()
        before = workers.memory()
        # Counts on: jobs run meanwhile, too.
        workers.expect(jobs - jobs // 10, record=False)
        with scene.server.traffic(jobs - jobs // 10) as traffic:
            report = workers.wait_acked()
        after = workers.memory()
    return {"growth": after / before, "rss": after, **traffic, **cpu(report, jobs - jobs // 10)}


def _multiply(scene: Scene, count: int) -> None:
    """Copy the one job that waits, with new ids: faster than to send as many."""
    jid, copies = scene.server.only_job(scene.peer.queue)
    for _ in range(0, count, BATCH):
        batch = [copies.replace(jid, uuid.uuid4().hex[: len(jid)].encode()) for _ in range(BATCH)]
        scene.server.push(scene.peer.queue, batch)
