"""References of one plan: the callbacks that its jobs carry by reference, and the chains stored for them.

With ``RedisCallbackStorage`` the processes of both languages read references.
Without a storage only Python's do, so a tree is carried by reference only if a
Python job starts it.  The plain gem reads the tree that it starts, and passes the
callbacks below it on unread.  So a Ruby step carries whole the steps up to the
next one that ends in Python, and the steps after that one by reference::

    chain(ruby, python, rest...)  ->  chain(chain(ruby, python), rest...)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..store.callback_storage import MIN_BYTES, RedisCallbackStorage
from ..store.chains import Pending, StoredChains, put
from ..wire import codec
from ..wire.callbacks import Callback
from ..wire.death_nodes import parts
from ..wire.lifetimes import GEM_BARRIER_TTL
from ..wire.nodes import Wire, jobs
from ..wire.references import may_refer
from ..wire.tree_times import completes_at_once

#: Bytes of a callback stack from which a Python step carries it by reference.  Below
#: it, a step costs less if it carries the stack than if it reads the next step now and
#: then.
LARGE = 4 * 1024

#: Returns True if Python runs a job, given in wire form or as it is pushed.
IsPython = Callable[[Mapping[str, Any]], bool]

Stack = tuple[Callback, ...]


class References:
    """References of a plan that reads references and makes none: payloads hold whole trees.

    Parameters:
      chains: The stored chains that references point to.

    Attributes:
      least: Minimum bytes of a stack for which :meth:`hold` is called.
      allowance: Seconds that the barriers of the plan must live longer, because
        Ruby steps do not extend them.
    """

    least = sys.maxsize

    def __init__(self, chains: StoredChains) -> None:
        self.allowance = 0
        self.chains = chains
        self.pending: Pending = {}
        #: By the stack's id(), and by whether the job reads references; holding the stack
        #: keeps that id in use.
        self._held: dict[tuple[int, bool], tuple[Stack, Stack]] = {}
        #: The same for callbacks, since many stacks hold the same one.
        self._short: dict[int, tuple[Callback, Callback]] = {}

    def hold(self, stack: Stack, job: Mapping[str, Any]) -> Stack:
        """Get the stack as a job's payload holds it; the same object for the same stack.

        Parameters:
          job: The keys that the job is pushed with.
        """
        key = (id(stack), self._reads(job))
        found = self._held.get(key)
        if found is None:
            found = self._held[key] = (stack, self._shorten(stack, key[1]))
        return found[1]

    def divide(self, children: list[Wire]) -> list[Wire]:
        """Get the steps of a chain that starts, some of them joined to one step; they do the same."""
        return children

    def resolve(self, reference: Wire, ttl: int) -> tuple[Wire, Wire | None]:
        """Read the step that a reference points at, and the reference to the steps after it; None if it is the last.

        Parameters:
          ttl: Seconds that the chain must live from now.

        Raises:
          CallbacksMissing: if the chain is gone.
          WrongType: if its key is not a hash.
        """
        return self.chains.read(reference, ttl)

    def write(self, ttl: int) -> None:
        """Store the chains that the payloads refer to, for at least ``ttl`` seconds."""
        if self.pending:
            self.chains.write(self.pending, ttl)

    def _reads(self, job: Mapping[str, Any]) -> bool:
        """Return True if each process that may fetch the job reads references."""
        return True

    def _shorten(self, stack: Stack, reads: bool) -> Stack:
        """Get a stack as a job carries it that reads references, or does not."""
        return tuple(map(self._short_one, stack))

    def _short_one(self, callback: Callback) -> Callback:
        found = self._short.get(id(callback))
        if found is None:
            remaining = None if callback.remaining is None else self._refer(callback.remaining, callback.barrier)
            found = (callback, Callback(callback.barrier, remaining, callback.propagate))
            self._short[id(callback)] = found
        return found[1]

    def _refer(self, remaining: Wire, barrier: str) -> Wire:
        """Make a reference to a tree, and add its chain to ``pending``; return the tree itself if it is not stored."""
        return remaining


class StorageReferences(References):
    """References of a RedisCallbackStorage, for steps of both languages."""

    def __init__(self, chains: StoredChains, storage: RedisCallbackStorage) -> None:
        super().__init__(chains)
        self.storage = storage
        self.least = storage.min_bytes

    def _refer(self, remaining: Wire, barrier: str) -> Wire:
        return self.storage.shorten(remaining, self.pending)


class LargeReferences(References):
    """References for large trees that Python steps start, if no storage is set.  Each chain belongs to one run.

    Parameters:
      first: True for a plan of the first steps of a run, whose tree no payload has held.
    """

    def __init__(self, chains: StoredChains, is_python: IsPython, *, first: bool = True) -> None:
        super().__init__(chains)
        self.least = LARGE
        self._is_python = is_python
        #: True if the planned tree was expanded; None if it was not looked at yet.
        self._expanded = False if first else None
        self._known: dict[tuple[Any, Any, Any], bool] = {}
        self._ends: dict[int, tuple[Callback, bool]] = {}

    def hold(self, stack: Stack, job: Mapping[str, Any]) -> Stack:
        return stack if self._expanded else super().hold(stack, job)

    def divide(self, children: list[Wire]) -> list[Wire]:
        """Join the first steps up to one that ends in Python, if the steps after it are large.

        Else the first step, which ends in Ruby, would carry all others whole.
        """
        if self._expanded is None:
            self._expanded = self._was_expanded(children)
        if len(children) < 3 or self._expanded or self._ends_in_python(children[0]):
            return children
        for index, child in enumerate(children[1:-1], 2):
            if self._ends_in_python(child):
                if not may_refer(_chain(children[index:]), LARGE):
                    break
                first = _chain(children[:index])
                self.allowance = max(self.allowance, _allowance(first))
                return [first, *children[index:]]
        return children

    def _was_expanded(self, children: list[Wire]) -> bool:
        """Return True for the large tree of a stored chain that a Ruby worker has put into a payload.

        Companions older than this version do so with each reference that a Ruby
        step carries.  If the tree were stored again, it would be after each of
        these steps.
        """
        kinds = {child["__type__"] for child in children}
        if "chain" not in kinds or "reference" in kinds:
            return False
        joined = (child for child in children if child["__type__"] == "chain")
        return not all(map(self._all_python, joined)) and may_refer(_chain(children), LARGE)

    def _reads(self, job: Mapping[str, Any]) -> bool:
        # Asked once for all jobs of a class.
        key = (job["class"], str(job.get("wrapped")), str(job.get("queue")))
        if key not in self._known:
            self._known[key] = self._is_python(job)
        return self._known[key]

    def _shorten(self, stack: Stack, reads: bool) -> Stack:
        held: list[Callback] = []
        # The jobs that run last in the tree of a callback start the tree of the callback below.
        python = reads
        for callback in reversed(stack):
            held.append(self._short_one(callback) if python else callback)
            if callback.remaining is not None and not completes_at_once(callback.remaining):
                python = self._python_completes(callback)
        return tuple(reversed(held))

    def _python_completes(self, callback: Callback) -> bool:
        """Return True if all jobs that run last in a callback's tree are Python's.

        The tree behind a reference is not read here: False.
        """
        assert callback.remaining is not None
        found = self._ends.get(id(callback))
        if found is None:
            found = self._ends[id(callback)] = (callback, self._ends_in_python(callback.remaining))
        return found[1]

    def _ends_in_python(self, node: Wire) -> bool:
        """Return True if Python runs all jobs that run last in a tree, whatever process starts it.

        False for a tree with an empty node at its end: that one completes in the
        process that starts it, or becomes a job in a queue that this process chooses.
        """
        kind = node["__type__"]
        if kind == "job":
            # Its fallback, if it has one, may run last instead.
            return self._reads(node) and all(map(self._ends_in_python, parts(node)))
        if kind == "with_delay":
            return self._ends_in_python(node["task"])
        if kind == "reference" or not node["children"]:
            return False
        last = node["children"] if kind == "group" else node["children"][-1:]
        return all(map(self._ends_in_python, last))

    def _refer(self, remaining: Wire, barrier: str) -> Wire:
        steps = self._linked(remaining["children"]) if may_refer(remaining, MIN_BYTES) else None
        if steps is None:
            return remaining
        allowances = (_allowance(step) for step in steps if not self._all_python(step))
        return put(self.pending, steps, barrier, extra=max(allowances, default=0) * 1000)

    def _linked(self, children: Sequence[Wire]) -> Sequence[Wire] | None:
        """Make the steps of a stored chain; None if it is better carried whole.

        The jobs that run last in a step start the steps after it by reference, so
        they must be Python's: each step and the steps after it, up to one that ends
        in Python, become one step.
        """
        steps: list[Wire] = []
        begun: list[Wire] = []
        for child in children:
            begun.append(child)
            if self._ends_in_python(child):
                steps.append(_joined(begun))
                begun = []
        if begun:
            steps.append(_joined(begun))
        # Steps that are stored as one are stored again by the Python jobs among them, and
        # for nothing by one whose group Ruby completes: then the first must be a quarter.
        if len(steps) > 1 or 4 * _size(children[0]) >= _size(_chain(children)):
            return steps
        return None

    def _all_python(self, node: Wire) -> bool:
        return all(map(self._reads, jobs(node)))


def _chain(children: Sequence[Wire]) -> Wire:
    return {"__type__": "chain", "children": list(children)}


def _joined(nodes: list[Wire]) -> Wire:
    """Make one node of nodes that run one after another."""
    return nodes[0] if len(nodes) == 1 else _chain(nodes)


def _allowance(node: Wire) -> int:
    """Compute the seconds that Ruby steps with the plain gem may take in a tree without extending the barriers below.

    The barrier of its first step is Python's.  The gem makes one for each other
    step, which may take as long as that one lives.
    """
    return (_longest_path(node) - 1) * GEM_BARRIER_TTL


def _longest_path(node: Wire) -> int:
    """Count the jobs on the longest path of a tree."""
    counts = map(_longest_path, parts(node))
    if node["__type__"] == "job":
        return 1 + sum(counts)
    return sum(counts) if node["__type__"] == "chain" else max(counts, default=0)


def _size(node: Wire) -> int:
    return len(codec.encode(node))
