"""Which callbacks the jobs of one plan carry by reference, and what is stored for them.

With ``RedisCallbackStorage`` every process reads references.  Without a
storage only Python's do, so a large tree goes by reference where the jobs that
carry it are all Python's.  A Ruby step carries whole trees, as in the gem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..store.callback_storage import RedisCallbackStorage
from ..store.chains import NewChain, Pending, StoredChains
from ..wire import codec
from ..wire.callbacks import Callback, dump_stack
from ..wire.nodes import Wire, jobs
from ..wire.references import is_reference, may_refer, refer

#: Bytes of a callback stack from which a Python step carries it by reference.
#: A fetch takes 5 ms for each MB of a job; other clients wait.
LARGE = 256 * 1024

#: Bytes of a tree from which a reference is worth it.
MIN_BYTES = 2048

#: Whether a job, in wire form or as it is pushed, is taken by Python.
IsPython = Callable[[Mapping[str, Any]], bool]


class References:
    """The references of one plan, which makes none: payloads hold whole trees.

    Parameters:
      chains: Where references are read from, and stored.
    """

    def __init__(self, chains: StoredChains) -> None:
        self.chains = chains
        self.pending: Pending = {}
        #: By the barrier at the top, which each stack has for itself.
        self._held: dict[str, bytes] = {}

    def hold(self, stack: tuple[Callback, ...], whole: bytes, job: Mapping[str, Any]) -> bytes:
        """What a job's payload holds of its stack, as JSON.

        Parameters:
          whole: The JSON of the stack as it is.
          job: The keys that the job is pushed with.
        """
        if not self._wanted(whole, job):
            return whole
        top = stack[-1].barrier
        if top not in self._held:
            self._held[top] = codec.encode(dump_stack(self._shorten(stack)))
        return self._held[top]

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

    def _wanted(self, whole: bytes, job: Mapping[str, Any]) -> bool:
        return False

    def _shorten(self, stack: tuple[Callback, ...]) -> tuple[Callback, ...]:
        return stack


class StorageReferences(References):
    """As the application's storage makes them, for steps of both languages."""

    def __init__(self, chains: StoredChains, storage: RedisCallbackStorage) -> None:
        super().__init__(chains)
        self.storage = storage

    def _wanted(self, whole: bytes, job: Mapping[str, Any]) -> bool:
        return len(whole) >= self.storage.min_bytes

    def _shorten(self, stack: tuple[Callback, ...]) -> tuple[Callback, ...]:
        return tuple(
            callback
            if callback.remaining is None
            else _with(callback, self.storage.shorten(callback.remaining, self.pending))
            for callback in stack
        )


class LargeReferences(References):
    """For large stacks of Python steps, where no storage was chosen.  Each chain belongs to one run."""

    def __init__(self, chains: StoredChains, is_python: IsPython) -> None:
        super().__init__(chains)
        self._is_python = is_python
        self._known: dict[tuple[Any, Any, Any], bool] = {}

    def _wanted(self, whole: bytes, job: Mapping[str, Any]) -> bool:
        return len(whole) >= LARGE and self.is_python(job)

    def is_python(self, job: Mapping[str, Any]) -> bool:
        """Whether a job is taken by Python.  Asked once for all jobs of a class."""
        key = (job["class"], str(job.get("wrapped")), str(job.get("queue")))
        if key not in self._known:
            self._known[key] = self._is_python(job)
        return self._known[key]

    def _shorten(self, stack: tuple[Callback, ...]) -> tuple[Callback, ...]:
        held: list[Callback] = []
        python = True
        # The jobs of what lies above carry what lies below.
        for callback in reversed(stack):
            remaining = callback.remaining
            if python and remaining is not None:
                # The tree behind a reference is not read here.
                python = not is_reference(remaining) and self._all_python(remaining)
                callback = _with(callback, self._refer(remaining, callback.barrier))
            held.append(callback)
        return tuple(reversed(held))

    def _refer(self, remaining: Wire, barrier: str) -> Wire:
        steps = self._linked(remaining["children"]) if may_refer(remaining, MIN_BYTES) else None
        if steps is None:
            return remaining
        reference, values = refer(steps, owner=barrier)
        self.pending[reference["chain"]] = NewChain(values, reference.get("delay", 0), barrier)
        return reference

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
        return all(map(self.is_python, jobs(node)))


def _with(callback: Callback, remaining: Wire) -> Callback:
    return callback if remaining is callback.remaining else Callback(callback.barrier, remaining, callback.propagate)


def _size(node: Wire) -> int:
    return len(codec.encode(node))
