"""The name of each Redis key, once.

Sidekiq's and the gem's own come first; the rest begins with ``swf:`` (no
Ruby program knows them) or is ``BARRIER:u``.
"""

from __future__ import annotations

QUEUES = "queues"
SCHEDULE = "schedule"
RETRY = "retry"
DEAD = "dead"

#: Zset ``HOST:PID:NONCE:QUEUE`` -> last beat in epoch seconds of Redis: who
#: holds jobs in flight.  No beat, no fetch.
WORKERS = "swf:workers"


def registry(language: str) -> str:
    """Hash class name -> JSON of its options: what one language tells the other."""
    return f"swf:registry:{language}"


def queue(name: str) -> str:
    """List of a queue: pushed left, taken right."""
    return f"queue:{name}"


def in_flight(member: str) -> str:
    """Hash receipt -> payload of one worker process and queue."""
    return f"swf:inflight:{member}"


def barrier(id: str) -> tuple[str, str, str]:
    """Counter, ``ran`` marker, and the set of units already counted."""
    return id, f"{id}_ran", f"{id}:u"


def fired(barrier_id: str) -> str:
    """Which unit released a barrier whose continuation goes to another broker; empty once it is there."""
    return f"{barrier_id}:f"


def run(run_id: str) -> str:
    """Marker of a started run: ``Workflow.run`` twice starts it once."""
    return f"swf:run:{run_id}"


def recovered(jid: str) -> str:
    """How often a job's worker died on it, within 72 hours."""
    return f"swf:recovered:{jid}"


def producer(id: str) -> str:
    """The last push of one thread: a push sent twice is pushed once."""
    return f"swf:push:{id}"


def stage(id: str) -> str:
    """One chunk of a large fan-out, waiting for its commit."""
    return f"swf:stage:{id}"


def worker_member(identity: str, queue_name: str) -> str:
    """The member of :data:`WORKERS` of a worker process and queue."""
    return f"{identity}:{queue_name}"


def queue_of(member: str) -> str:
    """The queue of a member: what follows ``HOST:PID:NONCE:``."""
    return member.split(":", 3)[3]
