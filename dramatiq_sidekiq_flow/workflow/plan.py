"""Plan of a node's start: the barriers to create and the jobs to push.

Imports neither redis nor dramatiq: time, ids, storages and references come
through :class:`Source`.  A plan is the complete result of starting a node with a
callback stack, so that one script can write it in one step.  It does the same as
the gem, which writes one command at a time:

* a job is pushed, with the stack (to ``schedule`` if it is delayed, or if its
  option ``at`` is in the future; a delay takes precedence over ``at``);
* a chain creates a barrier of 1 for its other children, and starts the first;
* a group creates a barrier of its size, or of the number of members that it needs, and
  starts every child;
* an empty chain or group completes at once, and a delayed one becomes a
  NoopWorker job, whose completion then counts.

A child that completes at once counts down the barriers of the same plan here.
Only if the *whole* node completes at once does the walk continue with barriers
that are in Redis (:attr:`Plan.completes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from ..wire import codec
from ..wire.barrier import NewBarrier
from ..wire.callbacks import Callback, dump_stack, wait_until
from ..wire.dialect import WORKFLOW, Dialect
from ..wire.lifetimes import MAX_TTL, RELEASED_TTL
from ..wire.need import group_of, need_of, needing_barrier
from ..wire.nodes import Wire
from ..wire.payload_fields import STEP_KEY
from ..wire.payload_frame import PayloadFrame
from .plan_ids import Ids
from .plan_references import References
from .siblings import siblings


@attrs.frozen
class Plan:
    """Barriers and jobs that the start of a node writes.

    Attributes:
      barriers: Barriers to create before any job is pushed.
      pushes: Payloads by queue, in order.
      scheduled: ``(epoch seconds, payload)`` for the ``schedule`` set.
      completes: True if the node has no job to run: its callbacks are due now.
      consumed: SHA256 of each stored chain whose last step starts.
      ttl: Seconds that its barriers, and the chains that it refers to, must live.
      carried: Callback stack of a plan's only job, as its payload holds it; None if it
        is not known.
    """

    barriers: tuple[NewBarrier, ...]
    pushes: Mapping[str, tuple[bytes, ...]]
    scheduled: tuple[tuple[float, bytes], ...]
    completes: bool
    consumed: tuple[str, ...]
    ttl: int
    carried: tuple[Callback, ...] | None = None

    def only_job(self, queue: str) -> bytes | None:
        """Get the payload of a plan that pushes one job, to this queue; None for another plan."""
        payloads = self.pushes.get(queue, ())
        return payloads[0] if len(payloads) == len(self.pushes) == 1 and not self.scheduled else None


@attrs.frozen
class Source:
    """Inputs of a plan that are not in the tree.

    Attributes:
      run_id: Run id of the jobs; None for jobs without a run.
      number: Number of the first step, unless the tree has it; None if steps are not numbered.
      now: Epoch seconds.
      options: A job in wire form -> the job options of its class.
      ids: Makers of ids.
      noop_queue: Queue of a NoopWorker job.
      inherited: Keys passed on by the step before (trace, tenant).
      tags: Tags added to each job's ``tags``.
      dialect: Dialect of the workflow's keys.
      prepare: Called with the keys of each job that is pushed, and its delay
        in milliseconds, before the job is encoded; it may add keys.
      store: Callback stack -> the value that a payload holds in its place; None
        if payloads hold stacks.
      references: References of the plan; None if the trees hold none, and none
        are to be made.
    """

    run_id: str | None
    now: float
    options: Callable[[Wire], Mapping[str, Any]]
    ids: Ids
    noop_queue: str = "default"
    inherited: Mapping[str, Any] = {}
    tags: tuple[str, ...] = ()
    dialect: Dialect = WORKFLOW
    prepare: Callable[[dict[str, Any], float], None] | None = None
    store: Callable[[list[list[Any]]], Any] | None = None
    references: References | None = None
    number: int | None = None


def plan(node: Wire, stack: tuple[Callback, ...], source: Source, ttl: int) -> Plan:
    """Plan the start of ``node``.

    Parameters:
      node: The tree in wire form (checked by ``wire.nodes.validate``).
      stack: The callbacks that are due when the node completes.
      ttl: Seconds that barriers must live (``wire.lifetimes``).
    """
    build = _Build(source, ttl)
    completes = build.start(node, stack, 0.0)
    if source.references is not None:
        build.ttl = min(build.ttl + source.references.allowance, MAX_TTL)
    made = build.barriers.items()
    barriers = [NewBarrier(id, value, build.ttl if value else RELEASED_TTL) for id, value in made]
    return Plan(
        tuple(barriers),
        {queue: tuple(payloads) for queue, payloads in build.pushes.items()},
        tuple(build.scheduled),
        completes,
        tuple(build.consumed),
        build.ttl,
        # A hook, and a storage, may write something else into the payload.
        build.carried if source.prepare is None and source.store is None else None,
    )


class _Build:
    def __init__(self, source: Source, ttl: int) -> None:
        self.source = source
        self.ttl = ttl
        #: Number of the first step, unless the tree has it.
        self.number = source.number
        self.barriers: dict[str, int] = {}
        self.pushes: dict[str, list[bytes]] = {}
        self.scheduled: list[tuple[float, bytes]] = []
        self.consumed: list[str] = []
        # Each child of a group carries the same stack: it is encoded once, and
        # so are the callbacks that the stacks of a group's chains share.
        self.stack: tuple[Callback, ...] = ()
        #: As the payload of the last job holds it.
        self.carried: tuple[Callback, ...] | None = None
        self.large = False
        self.held: dict[int, msgspec.Raw] = {}
        #: By the callback's id(), which stays in use with it.
        self.shared: dict[int, tuple[Callback, bytes]] = {}

    def start(self, node: Wire, stack: tuple[Callback, ...], delay: float) -> bool:
        """Start a node; return True if it completes at once.

        Parameters:
          delay: Milliseconds that its first jobs wait.
        """
        while True:
            kind = node["__type__"]
            if kind == "with_delay":
                node, delay = node["task"], delay + node["delay"]
                continue
            if kind == "job":
                return self.start_job(node, stack, delay)
            children = self.resolved(node) if kind == "reference" else node["children"]
            if not children:
                return self.start_empty(stack, delay)
            if kind == "group":
                return self.start_group(children, stack, delay)
            rest = self.start_chain(children, stack, delay)
            if rest is None:
                return False
            # The first child completed at once: the other children start now,
            # without the delay, which belonged to the first child.
            node, delay = _chain(rest), 0.0

    def start_job(self, node: Wire, stack: tuple[Callback, ...], delay: float) -> bool:
        """Push a job, or start the group that it carries; as :meth:`start`."""
        group = group_of(node)
        if group is not None:
            return self.start_group(group["children"], stack, delay, need_of(node))
        self.push(node, stack, delay)
        return False

    def resolved(self, reference: Wire) -> list[Wire]:
        """Read the step that a reference points at, and the reference to the steps after it, if any."""
        assert self.source.references is not None
        # If the step before it was replaced, the number of the step that ended does not tell its own.
        self.number = reference.get(STEP_KEY, self.number)
        child, following = self.source.references.resolve(reference, self.ttl)
        if following is None:
            self.consumed.append(reference["chain"])
            return [child]
        return [child, following]

    def start_empty(self, stack: tuple[Callback, ...], delay: float) -> bool:
        """Start a chain or group without children; return True unless a delay makes it a job that does nothing."""
        if not delay:
            return True
        noop = {"class": self.source.dialect.noop_class, "args": [], "retry": 0, "queue": self.source.noop_queue}
        self.push(noop, stack, delay)
        return False

    def start_chain(self, children: list[Wire], stack: tuple[Callback, ...], delay: float) -> list[Wire] | None:
        """Start a chain's first child; return the other children if it completes at once, else None."""
        if self.source.references is not None:
            children = self.source.references.divide(children)
        first, rest = children[0], children[1:]
        if not rest:
            return [] if self.start(first, stack, delay) else None
        barrier = self.source.ids.new_barrier()
        self.barriers[barrier] = 1
        remaining = Callback(barrier, _chain(rest), False)
        if not self.start(first, (*stack, remaining), delay):
            return None
        self.barriers[barrier] = 0
        return rest

    def start_group(self, children: list[Wire], stack: tuple[Callback, ...], delay: float, need: int = 0) -> bool:
        """Start all children of a group; return True if all, or as many as it needs, complete at once."""
        barrier = self.source.ids.new_barrier()
        spare = len(children) - need if need else 0
        barrier = needing_barrier(barrier, spare) if spare else barrier
        self.barriers[barrier] = len(children)
        members_stack = (*stack, Callback(barrier, None, True))
        waiting = 0
        for part in self.parts(children, delay):
            if len(part) > 1 and "at" not in part[0]:
                self.push_siblings(part, members_stack)
                waiting += len(part)
                continue
            for child in part:
                if not self.start(child, members_stack, delay):
                    waiting += 1
        self.barriers[barrier] = max(0, waiting - spare)
        return waiting <= spare

    def parts(self, children: list[Wire], delay: float) -> Iterable[Sequence[Wire]]:
        """Divide the children of a group into jobs that are pushed together, and single nodes."""
        if delay or self.source.prepare is not None:
            return ([child] for child in children)
        return siblings(children)

    def push(self, node: Wire, stack: tuple[Callback, ...], delay: float) -> None:
        """Add the payload of a job to the pushes of its queue, or to ``schedule``."""
        source = self.source
        fields = self.fields(node, stack)
        at = fields.pop("at", 0.0)
        if delay:
            at = source.now + delay / 1000
        if source.prepare is not None:
            source.prepare(fields, delay or wait_until(at, source.now))
        if at > source.now:
            self.scheduled.append((at, codec.encode_payload(fields)))
        else:
            fields["enqueued_at"] = source.now
            self.pushes.setdefault(fields["queue"], []).append(codec.encode_payload(fields))

    def push_siblings(self, nodes: Sequence[Wire], stack: tuple[Callback, ...]) -> None:
        """As :meth:`push`, for jobs that differ in their arguments and ids only."""
        source = self.source
        fields = self.fields(nodes[0], stack)
        jids = [fields["jid"]]
        jids += [node.get("jid") or source.ids.new_jid() for node in nodes[1:]]
        numbers = [node[STEP_KEY] for node in nodes] if STEP_KEY in nodes[0] else []
        arrays = [node["args"] for node in nodes]
        jobs = PayloadFrame.of(fields, queued=True).jobs(arrays, jids, fields["class"], numbers)
        self.pushes.setdefault(fields["queue"], []).extend(jobs.payloads(source.now))

    def fields(self, node: Wire, stack: tuple[Callback, ...]) -> dict[str, Any]:
        """Make the keys of a job's payload."""
        source = self.source
        # The options of this job come last, as in the client middleware of
        # Ruby: an inherited tenant does not overwrite one given to the step.
        fields = {**source.inherited, **source.options(node), **node}
        fields.pop("__type__", None)
        if self.number is not None and STEP_KEY not in node and "__type__" in node:
            fields[STEP_KEY] = self.number
        if source.run_id is not None:
            fields[source.dialect.run_id_key] = source.run_id
        if source.tags:
            fields["tags"] = _with_tags(fields.get("tags"), source.tags)
        if stack:
            fields[source.dialect.callbacks_key] = self.callbacks(stack, fields)
        # A step that was made from a message has that message's id.
        if type(fields.get("jid")) is not str or not fields["jid"]:
            fields["jid"] = source.ids.new_jid()
        fields["created_at"] = source.now
        return fields

    def callbacks(self, stack: tuple[Callback, ...], job: Mapping[str, Any]) -> msgspec.Raw:
        """Encode a stack as the payload of a job holds it."""
        references = self.source.references
        if stack is not self.stack:
            self.use_stack(stack)
        if self.large and references is not None:
            stack = references.hold(stack, job)
        self.carried = stack
        found = self.held.get(id(stack))
        if found is None:
            found = self.held[id(stack)] = msgspec.Raw(codec.encode(dump_stack(stack)))
        return found

    def use_stack(self, stack: tuple[Callback, ...]) -> None:
        """Encode the stack of the next jobs, unless it is large: each job may hold a large one differently."""
        source = self.source
        self.stack, self.held = stack, {}
        if source.store is not None:
            self.held[id(stack)] = msgspec.Raw(codec.encode(source.store(dump_stack(stack))))
            return
        parts = [*map(self.encode_shared, stack[:-1]), codec.encode(stack[-1].dump())]
        self.large = source.references is not None and sum(map(len, parts)) >= source.references.least
        if not self.large:
            self.held[id(stack)] = msgspec.Raw(b"[" + b",".join(parts) + b"]")

    def encode_shared(self, callback: Callback) -> bytes:
        """Encode a callback that several stacks hold, once."""
        found = self.shared.get(id(callback))
        if found is None:
            found = self.shared[id(callback)] = (callback, codec.encode(callback.dump()))
        return found[1]


def job_fields(node: Wire, source: Source) -> dict[str, Any]:
    """Make the keys of the payload of a job without callbacks."""
    return _Build(source, 0).fields(node, ())


def _chain(children: list[Wire]) -> Wire:
    """Make a chain of nodes; a single reference already stands for a chain."""
    if len(children) == 1 and children[0]["__type__"] == "reference":
        return children[0]
    return {"__type__": "chain", "children": children}


def _with_tags(explicit: Any, tags: tuple[str, ...]) -> list[Any]:
    explicit = explicit or ()
    return [*explicit, *(tag for tag in tags if tag not in explicit)]
