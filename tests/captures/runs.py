"""The runs that the captures show, written by hand."""

from __future__ import annotations

import time

import redis

from ..broken_runs import WAYS, Way, python_process
from ..recorded_runs import IDENTITY, RecordedRun, chain, delayed, group, job, ruby_process


def write_runs(client: redis.Redis) -> dict[str, str]:
    """Write runs in all states; return their ids by what they show."""
    python_process(client, "python", actors=("extract", "scan", "publish"), identity=IDENTITY)
    ruby_process(client, "ruby")
    ids = {name: _id(number) for number, name in enumerate(_RUNS, 1)}
    for name, write in _RUNS.items():
        write(client, ids[name])
    return ids


def write_broken(client: redis.Redis, way: Way) -> str:
    """Write one broken run; return its id."""
    run_id = _id(70 + WAYS.index(way))
    way.make(client, run_id)
    return run_id


def _id(number: int) -> str:
    return f"6f1c2a90-4b7e-4d11-9c3a-{number:012d}"


def _running(client: redis.Redis, run_id: str) -> None:
    tree = chain(
        job("extract", 7, "https://example.org/a-long-address/of-a-document.pdf"),
        group(*(job("scan", page) for page in range(3)), chain(job("Docs::Thumb", 7, queue="ruby"), job("scan", 99))),
        delayed(90_000, job("publish", 7)),
    )
    started = time.time() - 95
    run = RecordedRun(client, run_id, tree, template="documents", tags=["nightly", "customer-42"], started=started)
    run.done(1)
    run.done(2)
    run.in_flight(3)
    run.queued(4)
    run.in_retry(5, time.time() + 30, error_class="Errno::ENOENT", error_message="No such file or directory - a.pdf")


def _done(client: redis.Redis, run_id: str) -> None:
    tree = chain(job("extract", 7), job("Docs::Thumb", 7, queue="ruby"))
    run = RecordedRun(client, run_id, tree, started=time.time() - 4_000, finished=f"{time.time() - 3_950:.3f}")
    run.done(1)
    run.done(2)
    run.becomes("done")


def _wide(client: redis.Redis, run_id: str) -> None:
    tree = chain(job("extract", 7), group(*(job("scan", page) for page in range(2_000))), job("publish", 7))
    run = RecordedRun(client, run_id, tree, template="a template with a name that is rather long", tags=["bulk"])
    run.done(1)
    for number in range(2, 2_002):
        run.queued(number)


def _failed(client: redis.Redis, run_id: str) -> None:
    tree = chain(job("extract", 8), group(job("Docs::Thumb", 8, queue="ruby"), job("scan", 1)), job("publish", 8))
    run = RecordedRun(client, run_id, tree, template="documents", tags=["nightly"], started=time.time() - 700)
    run.done(1)
    run.done(3)
    run.failed(2, "Errno::ENOSPC", "No space left on device @ rb_sysopen - /var/lib/documents/thumbnails/8/large.png")
    run.becomes("failed")
    run.dead(2, time.time() - 60)


def _adopted(client: redis.Redis, run_id: str) -> None:
    RecordedRun(client, run_id, None, tags=["of-ruby"])


def _lost(client: redis.Redis, run_id: str) -> None:
    tree = chain(group(*(job("scan", page) for page in range(30))), job("publish", 9))
    run = RecordedRun(client, run_id, tree, template="a template with a name that is rather long", tags=["bulk"])
    run.done(1)


_RUNS = {"running": _running, "done": _done, "wide": _wide, "failed": _failed, "adopted": _adopted, "lost": _lost}
