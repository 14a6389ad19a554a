"""Chains that are stored once, for payloads that refer to them (``wire.references``)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from redis.exceptions import ResponseError

from ..errors import CallbacksMissing, WrongType
from ..wire.nodes import Wire
from ..wire.payload import RETRY_HORIZON
from ..wire.references import digest, follow, is_reference
from . import keys, scripts
from .connection import Connection
from .scripts import Command

#: A stored chain outlives the barriers that lead to it, by so many seconds.
MARGIN = 86_400

#: Steps that are read at once, and the bytes after which no more are: the next
#: steps of a chain often finish in the same process, and find theirs here.
READ_AHEAD = 8
READ_AHEAD_BYTES = 2048

#: Bytes of stored steps that one process remembers.
CACHE_BYTES = 4 * 1024 * 1024

#: Seconds between two prolongations of one chain by one process.
KEEP_EVERY = 3600

#: Bytes of stored steps that are sent in one round trip.
SEND_BYTES = 1024 * 1024

#: SHA256 of a chain -> its values, and what its delays add up to in milliseconds.
Pending = dict[str, tuple[list[bytes], float]]


class StoredChains:
    """The chains that payloads refer to.  Safe to share between threads."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached = 0
        self._kept: dict[str, float] = {}

    def writing(self) -> _Writing:
        """A block that collects chains, and writes them at its end."""
        return _Writing(self)

    def write(self, pending: Pending, ttl: int = 0) -> None:
        """Store chains.  What is there already lives on.

        Parameters:
          ttl: Seconds that they must live at least.
        """
        commands: list[Command] = []
        size = 0
        for sha, (values, delay) in pending.items():
            life = max(ttl, _ttl(delay)) + MARGIN
            commands.append(scripts.STORE_CALLBACKS.command((keys.callbacks(sha),), (life, *values)))
            size += sum(map(len, values))
            if size > SEND_BYTES:
                self._send(commands)
                commands, size = [], 0
        self._send(commands)

    def read(self, reference: Wire, ttl: int) -> tuple[Wire, Wire | None]:
        """The step that a reference points at, and the reference to what comes after it.

        Parameters:
          ttl: Seconds that the chain must live from now, where it has not been
            prolonged lately.

        Raises:
          CallbacksMissing: where it is gone.
          WrongType: where its key is not a hash.
        """
        sha = reference["sha"]
        with self._lock:
            value = self._cache.get(sha)
            if value is not None:
                self._cache.move_to_end(sha)
        if value is None:
            value, *ahead = self._values(reference, ttl, READ_AHEAD, READ_AHEAD_BYTES)
            self._remember(sha, (value, *ahead))
        return follow(reference, value)

    def whole(self, reference: Wire) -> Wire:
        """The tree that a reference stands for.

        Raises:
          CallbacksMissing: where it is gone, or not all there.
        """
        values = iter(self._values(reference, _ttl(reference.get("delay", 0)), 1_000_000_000, 1 << 40))
        children: list[Wire] = []
        following: Wire | None = reference
        while following is not None:
            value = next(values, None)
            if value is None:
                raise _missing(following)
            child, following = follow(following, value)
            children.append(child)
        return {"__type__": "chain", "children": children}

    def keep(self, trees: Iterable[Wire | None], ttl: int) -> None:
        """Prolong what these refer to, where this process has not done so within the hour.

        Parameters:
          ttl: Seconds.
        """
        now = time.monotonic()
        chains = [tree["chain"] for tree in trees if tree is not None and is_reference(tree)]
        due = [chain for chain in chains if now - self._kept.get(chain, -KEEP_EVERY) >= KEEP_EVERY]
        if due:
            names = [keys.callbacks(chain) for chain in dict.fromkeys(due)]
            self.connection.call(*scripts.READ_CALLBACKS.command(names, (ttl + MARGIN, 0, 0, 0)))
            self._have_kept(due, now)

    def _remember(self, sha: str, values: Iterable[bytes]) -> None:
        """Keep values of a chain that follow each other, the first of which has this name.

        Other chains share the values: one that has not its name, and what follows it, is not kept.
        """
        with self._lock:
            for value in values:
                if digest(value) != sha:
                    break
                if sha not in self._cache:
                    self._cache[sha] = value
                    self._cached += len(value)
                sha = value.partition(b":")[0].decode("ascii", "replace")
            while self._cached > CACHE_BYTES:
                self._cached -= len(self._cache.popitem(last=False)[1])

    def _values(self, reference: Wire, ttl: int, most: int, size: int) -> list[bytes]:
        now = time.monotonic()
        command = scripts.READ_CALLBACKS.command(
            (keys.callbacks(reference["chain"]),), (ttl + MARGIN, reference["at"], most, size)
        )
        try:
            values: list[bytes] = self.connection.call(*command)
        except ResponseError as e:
            if "WRONGTYPE" not in str(e):
                raise
            name = keys.callbacks(reference["chain"])
            raise WrongType(f"The Redis key {name!r} is not a hash. Remove it.", name) from None
        if not values:
            raise _missing(reference)
        self._have_kept((reference["chain"],), now)
        return values

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
    """The Redis keys that these refer to."""
    for tree in trees:
        if tree is not None and is_reference(tree):
            yield keys.callbacks(tree["chain"])


def _ttl(delay: float) -> int:
    return RETRY_HORIZON + int(delay / 1000) + 1


def _missing(reference: Wire) -> CallbacksMissing:
    name = keys.callbacks(reference["chain"])
    return CallbacksMissing(
        f"The Redis key {name!r} has no step {reference['at']}, so the run cannot go on from here. "
        "It expired, or somebody removed it.",
        reference,
    )
