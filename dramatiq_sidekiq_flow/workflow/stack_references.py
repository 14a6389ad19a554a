"""Which callbacks the jobs of one plan carry by reference, and what is stored for them.

With ``RedisCallbackStorage`` every process reads references.  Without a
storage only Python's do, so a large tree goes by reference where the jobs that
carry it are all Python's.  A Ruby step carries whole trees, as in the gem.
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

#: Bytes of a callback stack from which a Python step carries it by reference.
#: A fetch takes 5 ms for each MB of a job; other clients wait.
LARGE = 256 * 1024

#: Whether a job, in wire form or as it is pushed, is taken by Python.
IsPython = Callable[[Mapping[str, Any]], bool]

Stack = tuple[Callback, ...]


class References:
    """The references of one plan, which makes none: payloads hold whole trees.

    Parameters:
      chains: Where references are read from, and stored.

    Attributes:
      least: Bytes of a stack from which :meth:`hold` is asked.
    """

    least = sys.maxsize

    def __init__(self, chains: StoredChains) -> None:
        self.chains = chains
        self.pending: Pending = {}
        #: By the stack's id(), with the stack, which keeps that id.
        self._held: dict[int, tuple[Stack, Stack]] = {}
        #: The same of callbacks: one lies in many stacks.
        self._short: dict[int, tuple[Callback, Callback]] = {}

    def hold(self, stack: Stack, job: Mapping[str, Any]) -> Stack:
        """The stack as a job's payload holds it; the same object for the same stack.

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
        """The step that a reference points at, and the reference to what comes after it.

        Parameters:
          ttl: Seconds that the chain must live from now.

        Raises:
          CallbacksMissing: where it is gone.
          WrongType: where its key is not a hash.
        """
        return self.chains.read(reference, ttl)

    def write(self, ttl: int) -> None:
        """Store what the payloads refer to, for so many seconds at least."""
        if self.pending:
            self.chains.write(self.pending, ttl)

    def _reads(self, job: Mapping[str, Any]) -> bool:
        """Whether each process that may take the job reads references."""
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
        """A reference to a tree, and what to store for it into ``pending``; or the tree."""
        return remaining


class StorageReferences(References):
    """As the application's storage makes them, for steps of both languages."""

    def __init__(self, chains: StoredChains, storage: RedisCallbackStorage) -> None:
        super().__init__(chains)
        self.storage = storage
        self.least = storage.min_bytes

    def _refer(self, remaining: Wire, barrier: str) -> Wire:
        return self.storage.shorten(remaining, self.pending)


class LargeReferences(References):
    """For large stacks of Python steps, where no storage was chosen.  Each chain belongs to one run."""

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
        # The jobs of what lies above carry what lies below.
        for callback in reversed(stack):
            held.append(self._short_one(callback) if python else callback)
            python = python and self._python_carries(callback)
        return tuple(reversed(held))

    def _python_carries(self, callback: Callback) -> bool:
        """Whether all jobs of what remains are Python's.  The tree behind a reference is not read here."""
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
        """The steps of a stored chain; None where it is better carried whole.

        The jobs of each step carry a reference to what comes after it, so a
        step with a Ruby job, and all after it, become one.  It is stored anew
        after each stretch of Python steps, so that step must be a quarter of it.
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
