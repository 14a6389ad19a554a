"""What follows when a node starts: barriers to make, jobs to push.

Imports neither redis nor dramatiq: time, ids, storages and references come
through :class:`Source`.  A plan is the outcome of running a node with a callback
stack, worked out to the end, so that one script can write it in one step.  It
mirrors what the gem does one command at a time:

* a job is pushed, with the stack (and to ``schedule`` when delayed, or when its
  option ``at`` lies ahead; a delay goes before ``at``);
* a chain makes a barrier of 1 for what remains, and starts its first child;
* a group makes a barrier of its size, and starts every child;
* an empty chain or group completes at once, and a delayed one becomes a
  NoopWorker job, whose completion then counts.

What completes at once counts down the barriers made in the same plan right
here; only when the *whole* node completes at once does the walk go on with
barriers that live in Redis (:attr:`Plan.completes`).
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
import msgspec

from ..wire import codec
from ..wire.barrier import NewBarrier
from ..wire.callbacks import Callback, dump_stack, wait_until
from ..wire.dialect import WORKFLOW, Dialect
from ..wire.lifetimes import RELEASED_TTL
from ..wire.nodes import Wire


class Ids(Protocol):
    """Makers of ids.  They are called once a plan, so that a plan sent twice carries the same bytes."""

    def new_jid(self) -> str: ...
    def new_barrier(self) -> str: ...


@attrs.frozen
class Plan:
    """The outcome of starting a node.

    Attributes:
      barriers: To make before anything is pushed.
      pushes: Payloads by queue, in order.
      scheduled: ``(epoch seconds, payload)`` for the ``schedule`` set.
      completes: The node had nothing to run: its callbacks are due now.
      consumed: SHA256 of each stored chain whose last step starts.
      ttl: Seconds that its barriers, and the chains that it refers to, must live.
    """

    barriers: tuple[NewBarrier, ...]
    pushes: Mapping[str, tuple[bytes, ...]]
    scheduled: tuple[tuple[float, bytes], ...]
    completes: bool
    consumed: tuple[str, ...]
    ttl: int


class References(Protocol):
    """Callbacks that payloads hold by reference; see ``workflow.references``.

    Attributes:
      least: Bytes of a stack from which :meth:`hold` is asked.
    """

    least: int

    def hold(self, stack: tuple[Callback, ...], job: Mapping[str, Any]) -> tuple[Callback, ...]:
        """The stack as a job's payload holds it; the same object for the same stack."""

    def resolve(self, reference: Wire, ttl: int) -> tuple[Wire, Wire | None]:
        """The step that a reference points at, and the reference to what comes after it, if anything does."""

    def write(self, ttl: int) -> None:
        """Store what the payloads refer to, for so many seconds at least."""


@attrs.frozen
class Source:
    """Where a plan takes from what is not in the tree.

    Attributes:
      run_id: Of the jobs.
      now: Epoch seconds.
      options: A job in wire form -> the options that its class has of itself.
      ids: Makers of ids.
      noop_queue: Where a NoopWorker goes.
      inherited: Keys handed on by the step before (trace, tenant).
      tags: Added to each job's ``tags``.
      dialect: What the workflow's keys are called.
      prepare: Called with the keys of each job that is pushed, and its delay
        in milliseconds, before it is encoded; it may add some.
      store: What is written into a payload in place of a callback stack.
      references: Where trees are references; None where there are none.
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


def plan(node: Wire, stack: tuple[Callback, ...], source: Source, ttl: int) -> Plan:
    """Work out what starting ``node`` writes.

    Parameters:
      node: The tree in wire form (checked by ``wire.nodes.validate``).
      stack: The callbacks that are due when the node completes.
      ttl: Seconds that barriers must live (``wire.lifetimes``).
    """
    build = _Build(source, ttl)
    completes = build.start(node, stack, 0.0)
    made = build.barriers.items()
    return Plan(
        tuple(NewBarrier(id, value, ran, build.ttl if value else RELEASED_TTL) for id, (value, ran) in made),
        {queue: tuple(payloads) for queue, payloads in build.pushes.items()},
        tuple(build.scheduled),
        completes,
        tuple(build.consumed),
        build.ttl,
    )


@attrs.define
class _DerivedIds:
    """Makers of ids that are the same each time for the same name."""

    name: str
    _jids: itertools.count[int] = attrs.field(factory=itertools.count, init=False)
    _barriers: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    def new_jid(self) -> str:
        return hashlib.sha256(f"{self.name}:job:{next(self._jids)}".encode()).hexdigest()[:24]

    def new_barrier(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name}:barrier:{next(self._barriers)}"))


def derived(name: str) -> Ids:
    """Makers of ids, the same each time for the same name."""
    return _DerivedIds(name)


class _Build:
    def __init__(self, source: Source, ttl: int) -> None:
        self.source = source
        self.ttl = ttl
        self.barriers: dict[str, tuple[int, int]] = {}
        self.pushes: dict[str, list[bytes]] = {}
        self.scheduled: list[tuple[float, bytes]] = []
        self.consumed: list[str] = []
        # Each child of a group carries the same stack: it is written once, as
        # is what the stacks of a group's chains have in common.
        self.stack: tuple[Callback, ...] = ()
        self.large = False
        self.held: dict[int, msgspec.Raw] = {}
        #: By the callback's id(), with the callback, which keeps that id.
        self.shared: dict[int, tuple[Callback, bytes]] = {}

    def start(self, node: Wire, stack: tuple[Callback, ...], delay: float) -> bool:
        """Start a node; true if it completes at once.

        Parameters:
          delay: Milliseconds that its first jobs wait.
        """
        while True:
            kind = node["__type__"]
            if kind == "with_delay":
                node, delay = node["task"], delay + node["delay"]
                continue
            if kind == "job":
                self.push(node, stack, delay)
                return False
            if kind == "reference":
                children = self.resolved(node)
            else:
                children = node["children"]
            if not children:
                return self.start_empty(stack, delay)
            if kind == "group":
                return self.start_group(children, stack, delay)
            rest = self.start_chain(children, stack, delay)
            if rest is None:
                return False
            # The first child completed at once: what remains starts now, and
            # without the delay, which was the first child's.
            node, delay = _chain(rest), 0.0

    def resolved(self, reference: Wire) -> list[Wire]:
        """The step that a reference points at, and the reference to what follows it, if anything does."""
        assert self.source.references is not None
        child, following = self.source.references.resolve(reference, self.ttl)
        if following is None:
            self.consumed.append(reference["chain"])
            return [child]
        return [child, following]

    def start_empty(self, stack: tuple[Callback, ...], delay: float) -> bool:
        """Start a chain or group without children; a delayed one becomes a job that does nothing."""
        if not delay:
            return True
        source = self.source
        noop = {"class": source.dialect.noop_class, "args": [], "retry": 0, "queue": source.noop_queue}
        self.push(noop, stack, delay)
        return False

    def start_chain(self, children: list[Wire], stack: tuple[Callback, ...], delay: float) -> list[Wire] | None:
        """Start the first of a chain's children; the others if it completes at once, else None."""
        first, rest = children[0], children[1:]
        if not rest:
            return [] if self.start(first, stack, delay) else None
        barrier = self.source.ids.new_barrier()
        self.barriers[barrier] = (1, -1)
        remaining = Callback(barrier, _chain(rest), False)
        if not self.start(first, (*stack, remaining), delay):
            return None
        self.barriers[barrier] = (0, 0)
        return rest

    def start_group(self, children: list[Wire], stack: tuple[Callback, ...], delay: float) -> bool:
        """Start all children of a group; true if all complete at once."""
        barrier = self.source.ids.new_barrier()
        self.barriers[barrier] = (len(children), -1)
        members_stack = (*stack, Callback(barrier, None, True))
        waiting = 0
        for child in children:
            if not self.start(child, members_stack, delay):
                waiting += 1
        self.barriers[barrier] = (waiting, -1) if waiting else (0, 0)
        return not waiting

    def push(self, node: Wire, stack: tuple[Callback, ...], delay: float) -> None:
        """Write the payload of a job, for its queue or for ``schedule``."""
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

    def fields(self, node: Wire, stack: tuple[Callback, ...]) -> dict[str, Any]:
        """The keys of a job's payload."""
        source = self.source
        # The options of this very job come last, as in Ruby's own client
        # middleware: a tenant given to the step is not overwritten.
        fields = {**source.inherited, **source.options(node), **node}
        fields.pop("__type__", None)
        if source.run_id is not None:
            fields[source.dialect.run_id_key] = source.run_id
        if source.tags:
            fields["tags"] = _with_tags(fields.get("tags"), source.tags)
        if stack:
            fields[source.dialect.callbacks_key] = self.callbacks(stack, fields)
        # A step made from a message has that message's id.
        if type(fields.get("jid")) is not str or not fields["jid"]:
            fields["jid"] = source.ids.new_jid()
        fields["created_at"] = source.now
        return fields

    def callbacks(self, stack: tuple[Callback, ...], job: Mapping[str, Any]) -> msgspec.Raw:
        """The JSON of a stack, as the payload of a job holds it."""
        references = self.source.references
        if stack is not self.stack:
            self.take_up(stack)
        if self.large and references is not None:
            stack = references.hold(stack, job)
        found = self.held.get(id(stack))
        if found is None:
            found = self.held[id(stack)] = msgspec.Raw(codec.encode(dump_stack(stack)))
        return found

    def take_up(self, stack: tuple[Callback, ...]) -> None:
        """Encode the stack of the jobs that come next; not a large one, which each of them may hold differently."""
        source = self.source
        self.stack, self.held = stack, {}
        if source.store is not None:
            self.held[id(stack)] = msgspec.Raw(codec.encode(source.store(dump_stack(stack))))
            return
        parts = [*map(self.below, stack[:-1]), codec.encode(stack[-1].dump())]
        self.large = source.references is not None and sum(map(len, parts)) >= source.references.least
        if not self.large:
            self.held[id(stack)] = msgspec.Raw(b"[" + b",".join(parts) + b"]")

    def below(self, callback: Callback) -> bytes:
        """The JSON of a callback that other stacks have, too: encoded once."""
        found = self.shared.get(id(callback))
        if found is None:
            found = self.shared[id(callback)] = (callback, codec.encode(callback.dump()))
        return found[1]


def _chain(children: list[Wire]) -> Wire:
    """The chain of these; a reference stands for a chain already."""
    if len(children) == 1 and children[0]["__type__"] == "reference":
        return children[0]
    return {"__type__": "chain", "children": children}


def _with_tags(explicit: Any, tags: tuple[str, ...]) -> list[Any]:
    explicit = explicit or ()
    return [*explicit, *(tag for tag in tags if tag not in explicit)]
