"""Names of all Redis keys.

Those of Sidekiq and the gem come first; the others begin with ``swf:`` (no
Ruby program knows them) or are ``BARRIER:u``.
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

#: Set of the names of paused queues (Sidekiq Pro's): workers do not fetch from them.
PAUSED = "paused"

#: Lock of the process that removes records of dead processes (``api.rb``, ``ProcessSet``).
PROCESS_CLEANUP = "process_cleanup"

#: Zset ``HOST:PID:NONCE:QUEUE`` -> last heartbeat in epoch seconds of Redis, of
#: the workers that may hold jobs in flight.  A worker without a heartbeat does
#: not fetch.
WORKERS = "swf:workers"


def work(identity: str) -> str:
    """Hash thread -> JSON of its current job, of one process (``launcher.rb``)."""
    return f"{identity}:work"


def signals(identity: str) -> str:
    """List of the signals that an operator sent to a process (``api.rb``, ``Process#signal``)."""
    return f"{identity}-signals"


def stat(name: str, day: str = "") -> str:
    """Counter ``processed`` or ``failed``, total or of one day, ``YYYY-MM-DD``."""
    return f"stat:{name}:{day}" if day else f"stat:{name}"


def iteration(jid: str) -> str:
    """Hash of the state of a job that can be cancelled (``job/iterable.rb``)."""
    return f"it-{jid}"


def registry(language: str) -> str:
    """Hash class name -> JSON of its options, published by one language for the other."""
    return f"swf:registry:{language}"


def queue(name: str) -> str:
    """List of a queue: pushed left, popped right."""
    return f"queue:{name}"


def arrived(queue_name: str) -> str:
    """List of the job that the server has moved for an idle worker, until its fetch runs (``fetch.lua``)."""
    return f"swf:arrived:{queue_name}"


def in_flight(member: str) -> str:
    """Hash receipt -> payload of one worker process and queue."""
    return f"swf:inflight:{member}"


def flushed(identity: str) -> str:
    """Number of the last counts that a process wrote."""
    return f"swf:flushed:{identity}"


def barrier(id: str) -> tuple[str, str, str]:
    """Counter, ``ran`` marker, and the set of units already counted."""
    return id, f"{id}_ran", f"{id}:u"


def callbacks(sha: str) -> str:
    """Hash index -> step of a stored chain (``wire.references``)."""
    return f"swf:callbacks:{sha}"


def released(barrier_id: str) -> str:
    """Marker: the steps after a custom barrier were pushed, or the tree that replaces the first step of a run (its
    jid)."""
    return f"swf:released:{barrier_id}"


def fired(barrier_id: str) -> str:
    """The unit that released a barrier whose continuation goes to another broker; empty once it was enqueued."""
    return f"{barrier_id}:f"


def run(run_id: str) -> str:
    """Marker of a started run: a second ``Workflow.run`` does not start it again."""
    return f"swf:run:{run_id}"


def run_signals(run_id: str) -> str:
    """Hash name -> JSON of the signals that a run got."""
    return f"swf:signals:{run_id}"


def waiting(run_id: str) -> str:
    """Hash of the steps of a run that wait for a signal (``wait.lua``)."""
    return f"swf:waiting:{run_id}"


def record(run_id: str) -> str:
    """Hash of what is known of a run: state, times of its start and end, template, tags, tree."""
    return f"swf:flow:{run_id}"


def step_times(run_id: str) -> str:
    """Hash step number -> ``START END ATTEMPTS WORKER`` of each step that is done, numbered below 1,000."""
    return f"swf:flow:{run_id}:times"


def done_steps(run_id: str) -> str:
    """Bitmap by step number of the steps that are done, for those from 1,000."""
    return f"swf:flow:{run_id}:done"


def failed_steps(run_id: str) -> str:
    """Hash step number -> JSON of the error of each step that is dead."""
    return f"swf:flow:{run_id}:failed"


def added_trees(run_id: str) -> str:
    """Hash step number -> JSON of the tree that replaced the step."""
    return f"swf:flow:{run_id}:added"


def start_of(run_id: str) -> str:
    """String of what a run that can be repeated was started with."""
    return f"swf:flow:{run_id}:start"


def record_parts(run_id: str) -> tuple[str, ...]:
    """All keys of a run's record that are read to see where it stands."""
    return record(run_id), step_times(run_id), done_steps(run_id), failed_steps(run_id), added_trees(run_id)


def runs_in(state: str) -> str:
    """Zset run id -> start in epoch seconds, of the runs whose record has this state."""
    return f"swf:flows:{state}"


def runs_of_template(name: str) -> str:
    """Zset run id -> start in epoch seconds, of the runs of a template."""
    return f"swf:flows:template:{name}"


def runs_with_tag(tag: str) -> str:
    """Zset run id -> start in epoch seconds, of the runs with a tag."""
    return f"swf:flows:tag:{tag}"


def parked(run_id: str) -> str:
    """List of the jobs of a paused run (``_parked.lua``): a letter, the place that each goes to, a NUL, the payload."""
    return f"swf:parked:{run_id}"


def disarmed(run_id: str) -> str:
    """Hash barrier -> queue, a NUL, and the job that fires it later: barriers of a paused run, disarmed for Ruby."""
    return f"swf:flow:{run_id}:disarmed"


#: Zset run id -> epoch seconds of its cancellation or pause, of the runs cancelled or paused in the last days.
CANCELLED = "swf:cancelled"


def memory_lease(memory: str) -> str:
    """Lease: the run's memory must not expire before this key does (``extend_ttl``, ``advance.lua``)."""
    return f"swf:keep:{memory}"


def recovered(jid: str) -> str:
    """Counter of the workers that died with a job in flight, within 72 hours."""
    return f"swf:recovered:{jid}"


#: Claim of the process that is the keeper: its identity.
KEEPER = "swf:keeper"

#: Lock of the process that extends the lifetimes of paused runs.
UPKEEP_PAUSED = "swf:upkeep:paused"

#: The score in ``dead`` from which the keeper continues.
KEEPER_DEAD = "swf:keeper:dead"

#: Zset run id -> epoch seconds, of the runs that may have a callback to push.
RESTING = "swf:resting"

#: Zset run id -> deadline in epoch seconds.
DEADLINES = "swf:deadlines"


def unique(key: str) -> str:
    """The run that has a unique key."""
    return f"swf:unique:{key}"


def trial(queue_name: str) -> str:
    """The suspect of a queue that runs alone: the last one that a worker fetched for its trial."""
    return f"swf:trial:{queue_name}"


def producer(id: str) -> str:
    """Number of the last push of one producer: a push that is sent twice is made once."""
    return f"swf:push:{id}"


#: Zset ID -> epoch seconds of its commit: fan-outs that are not pushed completely.
FANOUTS = "swf:fanouts"


def fanout(id: str) -> str:
    """List of the payloads that a large fan-out has still to push; has a TTL until its commit."""
    return f"swf:fanout:{id}"


#: Mark that is written before each ``WAIT`` (``store/replication.py``).
REPLICATED = "swf:replicated"


#: Suffixes of a receipt ``BASE:INDEX`` while the job is not known to have begun:
#: prefetched; possibly begun, in a burst; suspect, counted and due for a trial.
NOT_BEGUN, PERHAPS, SUSPECT = "?", "~", "!"


def parse_receipt(receipt: str) -> tuple[str, int, str]:
    """Parse a receipt into base, index and state; ``(receipt, 0, "")`` if it has another form."""
    state = receipt[-1:] if receipt[-1:] in (NOT_BEGUN, PERHAPS, SUSPECT) else ""
    base, colon, index = receipt.removesuffix(state).rpartition(":")
    if not colon or not (index.isascii() and index.isdigit() and len(index) < 10):
        return receipt, 0, ""
    return base, int(index), state


def fetch_order(receipt: str | bytes) -> tuple[int, int]:
    """Sort key of receipts, in the order in which their jobs were fetched; those of another form come first."""
    if isinstance(receipt, bytes):
        receipt = receipt.decode("utf-8", "replace")
    base, index, _ = parse_receipt(receipt)
    try:
        return int(base, 16), index
    except ValueError:
        return -1, index


def worker_member(identity: str, queue_name: str) -> str:
    """Member of :data:`WORKERS` for a worker process and queue."""
    return f"{identity}:{queue_name}"


def readable(names: Iterable[bytes]) -> list[str]:
    """Decode names; leaves out those that are not UTF-8, which this library did not write."""
    decoded = []
    for name in names:
        with contextlib.suppress(UnicodeDecodeError):
            decoded.append(name.decode())
    return decoded


def is_member(name: str) -> bool:
    """Return True if a name has the form of a member, ``HOST:PID:NONCE:QUEUE``."""
    return name.count(":") >= 3


def queue_of(member: str) -> str:
    """Queue of a member: the part after ``HOST:PID:NONCE:``."""
    return member.split(":", 3)[3]


def identity_of(member: str) -> str:
    """``HOST:PID:NONCE`` of a member."""
    return ":".join(member.split(":", 3)[:3])
