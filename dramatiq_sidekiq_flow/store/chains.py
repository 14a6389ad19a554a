"""Stored chains: the steps of a chain, kept once; payloads refer to them (``wire.references``)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
from redis.exceptions import ResponseError

from ..errors import CallbacksMissing, WrongType
from ..wire.lifetimes import RELEASED_TTL, chain_ttl
from ..wire.nodes import Wire
from ..wire.references import digest, follow, is_reference, refer
from ..wire.tree_times import total_delay
from . import keys, scripts
from .connection import Connection
from .scripts import Command

#: Seconds that a stored chain lives longer than the barriers that lead to it.
MARGIN = 86_400

#: Number of steps that one read returns, and the bytes after which it stops. The
#: next steps of a chain often run in the same process, and are read from its cache.
READ_AHEAD = 32
READ_AHEAD_BYTES = 8192

#: Size of the cache of stored steps in one process, in bytes.
CACHE_BYTES = 4 * 1024 * 1024

#: Seconds between two prolongations of one chain by one process.
KEEP_EVERY = 3600

#: Bytes of stored steps that are sent in one round trip.
SEND_BYTES = 1024 * 1024

#: Size in bytes from which a step is read with HGET: a script takes four times as long.
LARGE_STEP = 256 * 1024


@attrs.frozen
class NewChain:
    """A chain to store.

    Attributes:
      values: One value for each step, linked (``wire.references``).
      delay: Sum of its delays, in milliseconds.
      barrier: A barrier of the run that owns it; "" if equal chains share it.
    """

    values: list[bytes]
    delay: float
    barrier: str = ""


#: SHA256 of a chain -> the chain to store.
Pending = dict[str, NewChain]


def put(pending: Pending, steps: Sequence[Wire], barrier: str = "", extra: int = 0) -> Wire:
    """Add a chain of steps to ``pending``; return the reference to it.

    Parameters:
      barrier: A barrier of the run that owns it; "" if equal chains share it.
      extra: Milliseconds that barriers must live longer than for its delays.
    """
    reference, values = refer(steps, barrier, extra)
    pending[reference["chain"]] = NewChain(values, total_delay(reference), barrier)
    return reference


class StoredChains:
    """Reads and writes stored chains, with a cache.  Safe to share between threads."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached = 0
        self._kept: dict[str, float] = {}

    def writing(self) -> _Writing:
        """Make a context manager that collects chains, and writes them at its end."""
        return _Writing(self)

    def write(self, pending: Pending, ttl: int = 0) -> None:
        """Store chains.  Those that are stored already are only prolonged.

        Parameters:
          ttl: Minimum lifetime, in seconds.
        """
        commands: list[Command] = []
        size = 0
        for sha, chain in pending.items():
            life = max(ttl, chain_ttl(chain.delay)) + MARGIN
            if chain.barrier:
                self._write_own(keys.callbacks(sha), chain, life)
                continue
            commands.append(scripts.STORE_CALLBACKS.command((keys.callbacks(sha),), (life, *chain.values)))
            size += sum(map(len, chain.values))
            if size > SEND_BYTES:
                self._send(commands)
                commands, size = [], 0
        self._send(commands)

    def release(self, shas: Sequence[str]) -> list[Exception]:
        """Let chains of one run expire in a day, after their last steps were started.

        Returns:
          Error replies; the chains of these commands expire later.
        """
        commands = [scripts.RELEASE_CALLBACKS.command((keys.callbacks(sha),), (RELEASED_TTL,)) for sha in shas]
        return [reply for reply in self.connection.send(commands) if isinstance(reply, Exception)]

    def _write_own(self, key: str, chain: NewChain, life: int) -> None:
        # Wait for this reply before the values are sent: a hash without a TTL would never expire.
        largest = max(map(len, chain.values), default=0)
        self.connection.call(*scripts.OWN_CALLBACKS.command((key,), (life, chain.barrier, largest)))
        part: list[scripts.Argument] = []
        size = 0
        for index, value in enumerate(chain.values):
            part += (index, value)
            size += len(value)
            if size > SEND_BYTES:
                self._send([("HSET", key, *part)])
                part, size = [], 0
        self._send([("HSET", key, *part)] if part else [])

    def read(self, reference: Wire, ttl: int) -> tuple[Wire, Wire | None]:
        """Read the step that a reference points at, and the reference to the steps after it.

        Parameters:
          ttl: Seconds that the chain must live from now on.  Applied if the step
            is not in the cache.

        Raises:
          CallbacksMissing: if the step is gone.
          WrongType: if its key is not a hash.
        """
        sha = reference["sha"]
        with self._lock:
            value = self._cache.get(sha)
            if value is not None:
                self._cache.move_to_end(sha)
        if value is not None:
            return follow(reference, value, checked=True)
        value, *ahead = self._values(reference, ttl, READ_AHEAD, READ_AHEAD_BYTES, LARGE_STEP)
        self._remember(sha, (value, *ahead))
        return follow(reference, value)

    def whole(self, reference: Wire) -> Wire:
        """Read the whole tree of a reference.

        Raises:
          CallbacksMissing: if it is gone, or incomplete.
        """
        values = iter(self._values(reference, chain_ttl(reference.get("delay", 0)), 1_000_000_000, 1 << 40))
        children: list[Wire] = []
        following: Wire | None = reference
        while following is not None:
            value = next(values, None)
            if value is None:
                raise _missing(following)
            child, following = follow(following, value)
            children.append(child)
        return {"__type__": "chain", "children": children}

    def extend(self, trees: Iterable[Wire | None], ttl: int) -> None:
        """Prolong the chains that trees refer to, at most once an hour for each chain and process.

        Parameters:
          ttl: Seconds.
        """
        now = time.monotonic()
        due = [chain for chain in _chains_of(trees) if now - self._kept.get(chain, -KEEP_EVERY) >= KEEP_EVERY]
        if due:
            names = [keys.callbacks(chain) for chain in dict.fromkeys(due)]
            self.connection.call(*scripts.READ_CALLBACKS.command(names, (ttl + MARGIN, 0, 0, 0)))
            self._have_kept(due, now)

    def _remember(self, sha: str, values: Iterable[bytes]) -> None:
        """Cache consecutive values of a chain, the first under the name ``sha``.

        Chains share values, so each value is checked against its name.  Stops at
        the first value that has another name.
        """
        with self._lock:
            for value in values:
                if len(value) >= LARGE_STEP or digest(value) != sha:
                    break
                if sha not in self._cache:
                    self._cache[sha] = value
                    self._cached += len(value)
                sha = value.partition(b":")[0].decode("ascii", "replace")
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Keep the cache within its bytes.  The lock is held."""
        while self._cached > CACHE_BYTES:
            self._cached -= len(self._cache.popitem(last=False)[1])

    def _values(self, reference: Wire, ttl: int, most: int, size: int, large: int = 1 << 40) -> list[bytes]:
        now = time.monotonic()
        name = keys.callbacks(reference["chain"])
        command = scripts.READ_CALLBACKS.command((name,), (ttl + MARGIN, reference["at"], most, size, large))
        try:
            values: list[bytes] = self.connection.call(*command)
            if values == [None]:
                values = self._large_value(name, reference["at"])
        except ResponseError as e:
            if "WRONGTYPE" not in str(e):
                raise
            raise WrongType(f"The Redis key {name!r} is not a hash. Remove it.", name) from None
        if not values:
            raise _missing(reference)
        self._have_kept((reference["chain"],), now)
        return values

    def _large_value(self, name: str, at: int) -> list[bytes]:
        """The value of a step that is too large for the script; empty if it is gone."""
        value = self.connection.call("HGET", name, at)
        return [] if value is None else [value]

    def _have_kept(self, chains: Sequence[str], now: float) -> None:
        if len(self._kept) > 10_000:
            self._kept = {}
        self._kept.update(dict.fromkeys(chains, now))

    def _send(self, commands: Sequence[Command]) -> None:
        for reply in self.connection.send(commands) if commands else ():
            if isinstance(reply, Exception):
                raise reply


class _Writing:
    def __init__(self, chains: StoredChains) -> None:
        self.chains = chains
        self.pending: Pending = {}

    def __enter__(self) -> Pending:
        return self.pending

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None and self.pending:
            self.chains.write(self.pending)


def stored_keys(trees: Iterable[Wire | None]) -> Iterator[str]:
    """List the Redis keys of the chains that trees refer to."""
    return map(keys.callbacks, _chains_of(trees))


def _chains_of(trees: Iterable[Wire | None]) -> Iterator[str]:
    """List the chains that trees refer to, by their SHA256."""
    for tree in trees:
        if tree is not None and is_reference(tree):
            yield tree["chain"]


def _missing(reference: Wire) -> CallbacksMissing:
    name = keys.callbacks(reference["chain"])
    return CallbacksMissing(
        f"The Redis key {name!r} has no step {reference['at']}, so the run cannot continue from here. "
        "It expired, or it was deleted.",
        reference,
    )
