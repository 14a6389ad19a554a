"""Seven ways to break a run, each written by hand as it is found in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import attrs
import redis

from .recorded_runs import RecordedRun, chain, group, job, ruby_process

#: A barrier that does not exist.
GONE = "00000000-0000-4000-8000-000000000001"


@attrs.frozen
class Way:
    """A way to break a run.

    Attributes:
      cause: What ``explain`` finds.
      verdict: On the run.
      make: Writes the run.
      texts: What the explanation says.
    """

    cause: str
    verdict: str
    make: Callable[[redis.Redis, str], object]
    texts: tuple[str, ...]


def python_process(
    client: redis.Redis, *queues: str, actors: tuple[str, ...] = ("first",), identity: str = "py:1:abc", ago: float = 0
) -> None:
    """The record and the heartbeats of a Python process, ``ago`` seconds old."""
    info = {"hostname": "py", "pid": 1, "queues": list(queues), "version": "1", "language": "python"}
    client.sadd("processes", identity)
    client.hset(identity, mapping={"info": json.dumps(info), "actors": json.dumps(actors), "beat": time.time() - ago})
    client.zadd("swf:workers", {f"{identity}:{queue}": time.time() - ago for queue in queues})


def dead_step(client: redis.Redis, run_id: str) -> RecordedRun:
    python_process(client, "python")
    run = RecordedRun(client, run_id, chain(job("first"), job("second")))
    run.failed(1, "IOError", "no disk")
    run.becomes("failed")
    run.dead(1, time.time() - 60)
    return run


def gone_barrier(client: redis.Redis, run_id: str) -> RecordedRun:
    python_process(client, "python")
    run = RecordedRun(client, run_id, chain(job("first"), job("second")))
    error = {"error_class": "BarrierExpired", "error_message": "its barrier is gone"}
    run.failed(1, **{"error": error["error_class"], "message": error["error_message"]})
    run.becomes("failed")
    stack = [[GONE, {"__type__": "chain", "children": [job("second")]}, False]]
    payload = run.payload(1, retry_count=0, workflow_completion_callbacks=stack, **error)
    client.zadd("dead", {payload: time.time() - 60})
    return run


def killed_python_worker(client: redis.Redis, run_id: str) -> RecordedRun:
    python_process(client, "python")
    run = RecordedRun(client, run_id, chain(job("first"), job("second")))
    run.in_flight(1)
    client.zadd("swf:workers", {"host:1:abc:python": time.time() - 40})
    return run


def killed_ruby_worker(client: redis.Redis, run_id: str) -> RecordedRun:
    """A plain Ruby worker, killed after it released the barrier, and before it pushed the next step."""
    python_process(client, "python")
    run = RecordedRun(client, run_id, chain(job("first"), job("Docs::Thumb", queue="ruby"), job("first")))
    run.done(1)
    client.set(GONE, 0, ex=60)
    client.set(f"{GONE}_ran", 0, ex=60)
    return run


def unknown_actor(client: redis.Redis, run_id: str) -> RecordedRun:
    python_process(client, "python", actors=("extract",))
    run = RecordedRun(client, run_id, chain(job("extrct"), job("second")))
    run.queued(1)
    return run


def misspelt_class(client: redis.Redis, run_id: str) -> RecordedRun:
    ruby_process(client, "ruby")
    client.hset("swf:registry:ruby", "Docs::Thumb", "{}")
    run = RecordedRun(client, run_id, chain(job("Docs::Thmub", queue="ruby"), job("second")))
    error = {"error_class": "NameError", "error_message": "uninitialized constant Docs::Thmub"}
    run.in_retry(1, time.time() + 30, **error)
    return run


def unserved_queue(client: redis.Redis, run_id: str) -> RecordedRun:
    python_process(client, "python")
    run = RecordedRun(client, run_id, group(*(job("first", number, queue="pythn") for number in range(3))))
    for number in (1, 2, 3):
        run.queued(number)
    return run


WAYS = (
    Way("dead", "failed", dead_step, ("RuntimeError: gave up", "--fix rerun", "--fix release", "Retry in Sidekiq")),
    Way("barrier_gone", "failed", gone_barrier, (GONE, "--fix release")),
    Way("dead_worker", "waiting", killed_python_worker, ("host:1:abc", "puts the job back into its queue in about")),
    Way("lost_in_ruby", "stuck", killed_ruby_worker, ("killed", "'Docs::Thumb'", "--fix cancel", "companion")),
    Way("unknown_actor", "stuck", unknown_actor, ("'extract'", "--fix cancel", "Import the actor's module")),
    Way("unknown_class", "stuck", misspelt_class, ("no class Docs::Thmub", "'Docs::Thumb'", "Deploy the class")),
    Way("no_consumer", "stuck", unserved_queue, ("'python'", "dramatiq with -Q pythn", "3 steps 'first' from 1 on")),
)
