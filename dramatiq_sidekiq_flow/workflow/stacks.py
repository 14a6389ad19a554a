"""Storage of callback stacks that payloads do not hold whole: by reference, or in a custom storage."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..protocols import CallbackStorage
from ..store.callback_storage import RedisCallbackStorage, is_custom
from ..store.chains import StoredChains
from ..store.connection import LOST, Connection
from ..wire.nodes import Wire, jobs
from ..wire.payload import Payload
from ..wire.payload_fields import STEP_KEY
from ..wire.references import is_reference
from .plan import Plan
from .stack_references import IsPython, LargeReferences, References, StorageReferences


class Stacks:
    """Reader and writer of one broker's callback stacks.

    Parameters:
      storage: The middleware's ``callback_storage``; None keeps stacks in the
        payload, and large ones of Python steps by reference.

    Attributes:
      retrieve: Stored value of a payload -> the stack; None without a custom
        storage.
      store: The stack -> the value that a payload holds in its place; None
        without a custom storage.
      inline: True if payloads hold whole callback stacks.
      refers_large: True if large stacks of Python steps are held by reference.
    """

    def __init__(self, connection: Connection, storage: CallbackStorage | None, is_python: IsPython) -> None:
        self.logger = get_logger(__name__, type(self))
        #: Used with any storage: another process may write references.
        self.chains = StoredChains(connection)
        self._is_python = is_python
        self._storage: RedisCallbackStorage | None = None
        self.retrieve: Callable[[Any], Any] | None = None
        self.store: Callable[[list[list[Any]]], Any] | None = None
        if isinstance(storage, RedisCallbackStorage):
            storage.bind(self.chains)
            self._storage = storage
        elif storage is not None and is_custom(storage):
            self.retrieve, self.store = storage.retrieve, storage.store
        self.inline = self._storage is None and self.retrieve is None
        self.refers_large = storage is None

    def references(self, *, first: bool) -> References:
        """Make the references of one plan.

        Parameters:
          first: True for the first steps of a run.
        """
        if self._storage is not None:
            return StorageReferences(self.chains, self._storage)
        if self.refers_large:
            return LargeReferences(self.chains, self._is_python, first=first)
        return References(self.chains)

    def whole(self, remaining: Wire) -> Wire:
        """Get the tree that a callback starts, without references.

        Raises:
          CallbacksMissing: if a stored chain is gone.
          ConnectionClosed: if Redis cannot be reached.
        """
        if not is_reference(remaining):
            return remaining
        try:
            tree = copy.deepcopy(self.chains.whole(remaining))
        except LOST as e:
            raise ConnectionClosed(e) from None
        first = next(jobs(tree), None)
        if first is not None and STEP_KEY in remaining:
            first.setdefault(STEP_KEY, remaining[STEP_KEY])
        return tree

    def extend(self, payload: Payload, ttl: int) -> None:
        """Extend the chains that a job's stack refers to, at most once an hour for each.

        Parameters:
          ttl: Lifetime from now, in seconds.

        Raises:
          ConnectionClosed: if Redis cannot be reached.
        """
        try:
            self.chains.extend([callback.remaining for callback in payload.stack], ttl)
        except LOST as e:
            raise ConnectionClosed(e) from None

    def release(self, plan: Plan) -> None:
        """Let the stored chains whose last steps a plan has pushed expire in a day.

        Only chains that belong to one run: those of a RedisCallbackStorage are shared.

        Raises:
          redis.ConnectionError, ServerUnavailable: if Redis cannot be reached; the chains expire later.
        """
        if plan.consumed and self.refers_large:
            for error in self.chains.release(plan.consumed):
                self.logger.warning("The TTL of a used stored chain was not shortened, so it expires late: %s", error)
