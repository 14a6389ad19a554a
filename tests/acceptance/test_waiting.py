"""How a process waits: with few connections, and silently, however many queues it serves."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import redis

from ..running import eventually
from .processes import registered, workers

#: Seconds for which an idle process is listened to, and what it may send in each.
LISTEN = 30.0
COMMANDS = 2


def push(client: redis.Redis, queues: int) -> None:
    """A job into each queue, as any Sidekiq client pushes it."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(queues):
            job = {"class": f"actor{number}", "args": [], "jid": f"{number:024x}", "queue": f"queue{number}"}
            pipe.lpush(f"queue:queue{number}", json.dumps({**job, "retry": True}))
        pipe.execute()


def connections(client: redis.Redis) -> int:
    """Those of the worker, which have its name: tests before may have left others open."""
    return sum(found["name"] == "worker" for found in client.client_list())


def test_200_queues_on_10_connections(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with workers(
        redis_url, log, count=1, module="tests.acceptance.waiting_app", QUEUES="200", CONNECTIONS="10"
    ) as at_work:
        registered(client, 200)
        push(client, 200)
        eventually(lambda: client.llen("ran") == 200, what="a job of each queue")
        # Once more, from idle: each queue is waited on.
        push(client, 200)
        eventually(lambda: client.llen("ran") == 400, what="another job of each queue")
        assert 0 < connections(client) <= 10
        at_work.stop()
    assert Counter(client.lrange("ran", 0, -1)) == {str(number).encode(): 2 for number in range(200)}
    assert "Too many connections" not in log.read_text("utf-8", "replace")


def commands_of_others(redis_url: str, seconds: float) -> Counter[str]:
    """What clients send meanwhile, by name: not what scripts call."""
    sent: Counter[str] = Counter()
    ended = threading.Event()

    def listen() -> None:
        with redis.Redis.from_url(redis_url) as listener, listener.monitor() as monitor:
            for entry in monitor.listen():
                if ended.is_set():
                    return
                if entry["client_type"] != "lua":
                    sent[entry["command"].split()[0].upper()] += 1

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(seconds)
    ended.set()
    with redis.Redis.from_url(redis_url) as waker:
        waker.ping()
    thread.join(10)
    return sent


@pytest.mark.parametrize("queues", [1, 100])
def test_an_idle_process_is_silent(redis_url: str, client: redis.Redis, tmp_path: Path, queues: int) -> None:
    module = "tests.acceptance.waiting_app"
    # As workers have it unless told otherwise.
    timeout = {"dramatiq_worker_timeout": "1000"}
    with workers(redis_url, tmp_path / "log", count=1, module=module, QUEUES=str(queues), **timeout) as at_work:
        registered(client, queues)
        push(client, queues)
        eventually(lambda: client.llen("ran") == queues)
        eventually(lambda: client.smembers("processes"))
        # A consumer registers its queue again only after it has handed out its job.
        eventually(lambda: commands_of_others(redis_url, 1.0).total() <= COMMANDS, what="an idle second")
        sent = commands_of_others(redis_url, LISTEN)
        assert sent.total() <= COMMANDS * LISTEN, sent
        # It was not deaf.
        push(client, queues)
        eventually(lambda: client.llen("ran") == 2 * queues)
        at_work.stop()
