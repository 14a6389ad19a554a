"""References of one plan: the callbacks that its jobs carry by reference, and the chains stored for them.

With ``RedisCallbackStorage`` the processes of both languages read references.
Without a storage only Python's do, so a large tree is carried by reference only
if all jobs that carry it are Python's.  A Ruby step carries whole trees, as in
the gem.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..store.callback_storage import MIN_BYTES, RedisCallbackStorage
from ..store.chains import Pending, StoredChains, put
from ..wire import codec
from ..wire.callbacks import Callback
from ..wire.nodes import Wire, jobs
from ..wire.references import is_reference, may_refer

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
    """

    least = sys.maxsize

    def __init__(self, chains: StoredChains) -> None:
        self.chains = chains
        self.pending: Pending = {}
        #: By the stack's id(); holding the stack keeps that id in use.
        self._held: dict[int, tuple[Stack, Stack]] = {}
        #: The same for callbacks, since many stacks hold the same one.
        self._short: dict[int, tuple[Callback, Callback]] = {}

    def hold(self, stack: Stack, job: Mapping[str, Any]) -> Stack:
        """Get the stack as a job's payload holds it; the same object for the same stack.

        Parameters:
          job: The keys that the job is pushed with.
        """
        if not self._reads(job):
            return stack
        found = self._held.get(id(stack))
        if found is None:
            found = self._held[id(stack)] = (stack, self._shorten(stack))
        return found[1]

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

    def _shorten(self, stack: Stack) -> Stack:
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
    """References for large stacks of Python steps, if no storage is set.  Each chain belongs to one run."""

    def __init__(self, chains: StoredChains, is_python: IsPython) -> None:
        super().__init__(chains)
        self.least = LARGE
        self._is_python = is_python
        self._known: dict[tuple[Any, Any, Any], bool] = {}
        self._carriers: dict[int, tuple[Callback, bool]] = {}

    def _reads(self, job: Mapping[str, Any]) -> bool:
        # Asked once for all jobs of a class.
        key = (job["class"], str(job.get("wrapped")), str(job.get("queue")))
        if key not in self._known:
            self._known[key] = self._is_python(job)
        return self._known[key]

    def _shorten(self, stack: Stack) -> Stack:
        held: list[Callback] = []
        python = True
        # The jobs of the callbacks above carry the callbacks below.
        for callback in reversed(stack):
            held.append(self._short_one(callback) if python else callback)
            python = python and self._python_carries(callback)
        return tuple(reversed(held))

    def _python_carries(self, callback: Callback) -> bool:
        """Return True if all jobs of a callback's tree are Python's.

        The tree behind a reference is not read here: False.
        """
        remaining = callback.remaining
        if remaining is None:
            return True
        found = self._carriers.get(id(callback))
        if found is None:
            found = (callback, not is_reference(remaining) and self._all_python(remaining))
            self._carriers[id(callback)] = found
        return found[1]

    def _refer(self, remaining: Wire, barrier: str) -> Wire:
        steps = self._linked(remaining["children"]) if may_refer(remaining, MIN_BYTES) else None
        return remaining if steps is None else put(self.pending, steps, barrier)

    def _linked(self, children: Sequence[Wire]) -> Sequence[Wire] | None:
        """Make the steps of a stored chain; None if it is better carried whole.

        The jobs of each step carry a reference to the steps after it, so a step
        with a Ruby job and all steps after it become one step.  These steps are
        stored again after each sequence of Python steps, so the step with the
        Ruby job must be a quarter of them.
        """
        for index, child in enumerate(children[:-1]):
            if not self._all_python(child):
                rest = {"__type__": "chain", "children": children[index:]}
                return [*children[:index], rest] if 4 * _size(child) >= _size(rest) else None
        return children

    def _all_python(self, node: Wire) -> bool:
        return all(map(self._reads, jobs(node)))


def _size(node: Wire) -> int:
    return len(codec.encode(node))
