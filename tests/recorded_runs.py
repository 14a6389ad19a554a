"""Records of runs, written by hand as the scripts write them, and jobs of these runs in all places."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from dramatiq_sidekiq_flow.wire.nodes import Wire, jobs
from dramatiq_sidekiq_flow.wire.run_tree import dump_tree

IDENTITY = "host:1:abc"


def job(name: str, *args: Any, queue: str = "python") -> Wire:
    """A job in wire form."""
    return {"__type__": "job", "class": name, "args": list(args), "queue": queue}


def chain(*children: Wire) -> Wire:
    return {"__type__": "chain", "children": list(children)}


def group(*children: Wire) -> Wire:
    return {"__type__": "group", "children": list(children)}


def delayed(delay: int, node: Wire) -> Wire:
    return {"__type__": "with_delay", "delay": delay, "task": node}


def is_ruby(job: Mapping[str, Any]) -> bool:
    return bool(job["class"][0].isupper())


class RecordedRun:
    """A run whose record and jobs a test writes."""

    def __init__(
        self,
        client: redis.Redis,
        run_id: str,
        tree: Wire | None,
        *,
        state: str = "running",
        started: float | None = None,
        template: str | None = None,
        tags: Iterable[str] = (),
        **fields: Any,
    ) -> None:
        self.client = client
        self.id = run_id
        self.state = state
        self.started = time.time() if started is None else started
        self.steps = [] if tree is None else list(jobs(tree))
        record: dict[Any, Any] = {"state": state, "started": f"{self.started:.3f}", "keep": 604800, **fields}
        if tree is None:
            record["adopted"] = 1
        else:
            record |= {"total": len(self.steps), "tree": dump_tree(tree, is_ruby)}
        if template:
            record["template"] = template
            client.zadd(f"swf:flows:template:{template}", {run_id: self.started})
        if tags:
            record["tags"] = json.dumps(list(tags))
            for tag in tags:
                client.zadd(f"swf:flows:tag:{tag}", {run_id: self.started})
        client.hset(f"swf:flow:{run_id}", mapping=record)
        client.hset(f"swf:flow:{run_id}:times", "0", "")
        client.zadd(f"swf:flows:{state}", {run_id: self.started})

    def becomes(self, state: str) -> None:
        """Record another state."""
        self.client.hset(f"swf:flow:{self.id}", "state", state)
        self.client.zrem(f"swf:flows:{self.state}", self.id)
        self.client.zadd(f"swf:flows:{state}", {self.id: self.started})
        self.state = state

    def done(self, number: int, *, seconds: float = 1.0, failed: int = 0) -> None:
        """Mark a step as done."""
        if number < 1000:
            entry = f"{self.started:.3f} {self.started + seconds:.3f} {failed} {IDENTITY}"
            self.client.hset(f"swf:flow:{self.id}:times", str(number), entry)
        else:
            self.client.setbit(f"swf:flow:{self.id}:done", number, 1)

    def failed(self, number: int, error: str = "ValueError", message: str = "bad") -> None:
        """Mark a step as dead."""
        step = self.steps[number - 1]
        failure = {"jid": self.jid(number), "class": step["class"], "queue": step["queue"]}
        failure |= {"error_class": error, "error_message": message, "at": self.started + 2}
        self.client.hset(f"swf:flow:{self.id}:failed", str(number), json.dumps(failure))

    def jid(self, number: int) -> str:
        return f"{self.id}-{number}"

    def payload(self, number: int | None, **fields: Any) -> bytes:
        """The payload of a step; None is a job that is in no tree."""
        step = self.steps[number - 1] if number else {"class": "Sidekiq::Workflow::NoopWorker", "args": []}
        payload = {"queue": "python", **step, "jid": self.jid(number or 0), "workflow_run_id": self.id, **fields}
        payload.pop("__type__", None)
        if number:
            payload["swf_step"] = number
        return json.dumps(payload).encode()

    def queued(self, number: int, queue: str | None = None) -> None:
        name = queue or self.steps[number - 1]["queue"]
        self.client.sadd("queues", name)
        self.client.lpush(f"queue:{name}", self.payload(number))

    def arrived(self, number: int) -> None:
        self.client.sadd("queues", "python")
        self.client.lpush("swf:arrived:python", self.payload(number))

    def in_flight(self, number: int, receipt: str = "1f:0") -> None:
        self.client.zadd("swf:workers", {f"{IDENTITY}:python": time.time()})
        self.client.hset(f"swf:inflight:{IDENTITY}:python", receipt, self.payload(number))

    def scheduled(self, number: int | None, due: float) -> None:
        self.client.zadd("schedule", {self.payload(number): due})

    def in_retry(self, number: int, due: float, **fields: Any) -> None:
        failure = {"retry_count": 0, "error_class": "IOError", "error_message": "no disk", **fields}
        self.client.zadd("retry", {self.payload(number, **failure): due})

    def dead(self, number: int, at: float) -> None:
        failure = {"retry_count": 2, "error_class": "RuntimeError", "error_message": "gave up"}
        self.client.zadd("dead", {self.payload(number, **failure): at})

    def staged(self, number: int, committed: bool = True) -> None:
        self.client.rpush("swf:fanout:f1", b"b60 2 2 some-barrier", b"qpython", self.payload(number))
        if committed:
            self.client.zadd("swf:fanouts", {"f1": time.time()})

    def worked_on(self, number: int, run_at: float, identity: str = "ruby:2:def") -> None:
        """A thread of a process works on a step, as its last beat says."""
        entry = {"queue": "default", "payload": self.payload(number).decode(), "run_at": int(run_at)}
        self.client.sadd("processes", identity)
        self.client.hset(f"{identity}:work", "t1", json.dumps(entry))


def ruby_process(client: redis.Redis, *queues: str, identity: str = "ruby:2:def") -> None:
    """The record of a Ruby process that consumes queues."""
    client.sadd("processes", identity)
    info = {"hostname": "ruby", "pid": 2, "queues": list(queues), "version": "7.3.0"}
    client.hset(identity, mapping={"info": json.dumps(info), "beat": time.time()})
