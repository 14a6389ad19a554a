"""Programs that fork with a broker at hand: ``python -m tests.acceptance.fork_app PROGRAM``.

They end with 0 if no child failed.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

from ..running import eventually

broker = SidekiqBroker(url=os.environ["REDIS_URL"])
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
client = redis.Redis.from_url(os.environ["REDIS_URL"])
released = threading.Event()


@dramatiq.actor(queue_name="python")
def note(name: str) -> None: ...


@dramatiq.actor(queue_name="long")
def long() -> None:
    client.rpush("events", "begin")
    released.wait(60)
    client.rpush("events", "end")


def send(child: int) -> None:
    for number in range(25):
        note.send(f"{child}-{number}")
        note.send_with_options(args=(f"{child}-{number}",), delay=3_600_000)


def run(processes: list[multiprocessing.process.BaseProcess]) -> bool:
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    return all(process.exitcode == 0 for process in processes)


def children(warm: bool) -> bool:
    """Four children send 50 jobs each; the parent may have sent one before."""
    if warm:
        note.send("from the parent")
    fork = multiprocessing.get_context("fork")
    return run([fork.Process(target=send, args=(child,)) for child in range(4)])


def grandchildren() -> bool:
    """A child that has sent forks, too."""

    def child(number: int) -> None:
        send(number)
        sys.exit(not run([fork.Process(target=send, args=(number + 2,))]))

    fork = multiprocessing.get_context("fork")
    return run([fork.Process(target=child, args=(number,)) for number in range(2)])


def close() -> bool:
    """A child closes its copy of the broker while its parent, a worker, has a job in flight."""
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    long.send()
    eventually(lambda: client.lrange("events", 0, -1) == [b"begin"])
    fork = multiprocessing.get_context("fork")
    closed = run([fork.Process(target=broker.close)])
    held = [payload for key in client.keys("swf:inflight:*") for payload in client.hvals(key)]
    client.rpush("after", len(held), client.zcard("swf:workers"), client.llen("queue:long"))
    released.set()
    eventually(lambda: client.lrange("events", 0, -1) == [b"begin", b"end"])
    # What comes after it is still taken, by the same process.
    long.send()
    eventually(lambda: client.llen("events") == 4)
    worker.stop()
    broker.close()
    return closed


PROGRAMS = {
    "children": lambda: children(False),
    "children of a parent that has sent": lambda: children(True),
    "grandchildren": grandchildren,
    "close": close,
}

if __name__ == "__main__":
    sys.exit(not PROGRAMS[sys.argv[1]]())
