"""The name of each Redis key, once.

Sidekiq's and the gem's own come first; the rest begins with ``swf:`` (no
Ruby program knows them) or is ``BARRIER:u``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

QUEUES = "queues"
SCHEDULE = "schedule"
RETRY = "retry"
DEAD = "dead"

#: Set of the identities of worker processes (``launcher.rb``).
PROCESSES = "processes"

#: Set of the names of queues that nobody fetches from (Sidekiq Pro's).
PAUSED = "paused"

#: Who holds it looks for processes that are gone (``api.rb``, ``ProcessSet``).
PROCESS_CLEANUP = "process_cleanup"

#: Zset ``HOST:PID:NONCE:QUEUE`` -> last beat in epoch seconds of Redis: who
#: holds jobs in flight.  No beat, no fetch.
WORKERS = "swf:workers"


def work(identity: str) -> str:
    """Hash thread -> JSON of the job it works on, of one process (``launcher.rb``)."""
    return f"{identity}:work"


def signals(identity: str) -> str:
    """List of the signals that a person sent to a process (``api.rb``, ``Process#signal``)."""
    return f"{identity}-signals"


def stat(name: str, day: str = "") -> str:
    """Counter ``processed`` or ``failed``, in all or of one day, ``YYYY-MM-DD``."""
    return f"stat:{name}:{day}" if day else f"stat:{name}"


def iteration(jid: str) -> str:
    """Hash of a job that can be cancelled (``job/iterable.rb``)."""
    return f"it-{jid}"


def registry(language: str) -> str:
    """Hash class name -> JSON of its options: what one language tells the other."""
    return f"swf:registry:{language}"


def queue(name: str) -> str:
    """List of a queue: pushed left, taken right."""
    return f"queue:{name}"


def in_flight(member: str) -> str:
    """Hash receipt -> payload of one worker process and queue."""
    return f"swf:inflight:{member}"


def flushed(identity: str) -> str:
    """Number of the last counts that a process has written."""
    return f"swf:flushed:{identity}"


def barrier(id: str) -> tuple[str, str, str]:
    """Counter, ``ran`` marker, and the set of units already counted."""
    return id, f"{id}_ran", f"{id}:u"


def callbacks(sha: str) -> str:
    """Hash index -> step of a chain, where payloads refer to it (``wire.references``)."""
    return f"swf:callbacks:{sha}"


def released(barrier_id: str) -> str:
    """Marker: what follows a barrier of the application's own was pushed."""
    return f"swf:released:{barrier_id}"


def fired(barrier_id: str) -> str:
    """Which unit released a barrier whose continuation goes to another broker; empty once it is there."""
    return f"{barrier_id}:f"


def run(run_id: str) -> str:
    """Marker of a started run: ``Workflow.run`` twice starts it once."""
    return f"swf:run:{run_id}"


def memory_lease(memory: str) -> str:
    """Lives as long as a run's memory is to live at least (``extend_ttl``); ``advance.lua`` looks at it."""
    return f"swf:keep:{memory}"


def recovered(jid: str) -> str:
    """How often a job's worker died on it, within 72 hours."""
    return f"swf:recovered:{jid}"


#: Who holds it looks through ``dead`` for jobs whose runs must be kept alive.
UPKEEP = "swf:upkeep"

#: The score in ``dead`` from which it looks next.
UPKEEP_DEAD = "swf:upkeep:dead"


def trial(queue_name: str) -> str:
    """Which suspect of a queue runs alone now: the last one that a worker took for its trial."""
    return f"swf:trial:{queue_name}"


def producer(id: str) -> str:
    """The last push of one thread: a push sent twice is pushed once."""
    return f"swf:push:{id}"


#: Zset ID -> epoch seconds of its commit: fan-outs that are not pushed to the end.
FANOUTS = "swf:fanouts"


def fanout(id: str) -> str:
    """List of what a large fan-out has still to push; until its commit it has a TTL."""
    return f"swf:fanout:{id}"


#: Written before each question to the replicas (``store/replication.py``).
REPLICATED = "swf:replicated"


#: What follows a receipt ``BASE:INDEX`` while the job is not known to have
#: begun: fetched ahead; perhaps begun, in a burst; counted, waits for its trial.
NOT_BEGUN, PERHAPS, SUSPECT = "?", "~", "!"


def parse_receipt(receipt: str) -> tuple[str, int, str]:
    """Base, index and state of a receipt; ``(receipt, 0, "")`` for another form."""
    state = receipt[-1:] if receipt[-1:] in (NOT_BEGUN, PERHAPS, SUSPECT) else ""
    base, colon, index = receipt.removesuffix(state).rpartition(":")
    if not colon or not (index.isascii() and index.isdigit() and len(index) < 10):
        return receipt, 0, ""
    return base, int(index), state


def fetch_order(receipt: str | bytes) -> tuple[int, int]:
    """Sorts receipts as their jobs were fetched; those of another form come first."""
    text = receipt.decode("utf-8", "replace") if isinstance(receipt, bytes) else receipt
    base, index, _ = parse_receipt(text)
    try:
        return int(base, 16), index
    except ValueError:
        return -1, index


def worker_member(identity: str, queue_name: str) -> str:
    """The member of :data:`WORKERS` of a worker process and queue."""
    return f"{identity}:{queue_name}"


def readable(names: Iterable[bytes]) -> list[str]:
    """Names that are UTF-8; others, which nothing here has written, are left out."""
    found = []
    for name in names:
        with contextlib.suppress(UnicodeDecodeError):
            found.append(name.decode())
    return found


def is_member(name: str) -> bool:
    """Whether a name has the form of a member, ``HOST:PID:NONCE:QUEUE``."""
    return name.count(":") >= 3


def queue_of(member: str) -> str:
    """The queue of a member: what follows ``HOST:PID:NONCE:``."""
    return member.split(":", 3)[3]


def identity_of(member: str) -> str:
    """The ``HOST:PID:NONCE`` of a member."""
    return ":".join(member.split(":", 3)[:3])
