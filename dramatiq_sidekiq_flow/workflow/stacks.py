"""Callback stacks that payloads hold by reference, or in a storage of the application's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..protocols import CallbackStorage
from ..store.callback_storage import RedisCallbackStorage, is_custom
from ..store.chains import StoredChains
from ..store.connection import LOST, Connection
from ..wire.payload import Payload
from .plan import Plan
from .stack_references import IsPython, LargeReferences, References, StorageReferences


class Stacks:
    """Stores and reads callback stacks for one broker.

    Parameters:
      storage: As given to the middleware; None keeps stacks in the payload, but
        large ones of Python steps by reference.

    Attributes:
      retrieve: What a payload holds -> the stack; None unless the application
        has a storage of its own.
      store: The stack -> what a payload holds; None as ``retrieve``.
      inline: Payloads hold whole callback stacks.
      refers_large: Large stacks of Python steps go by reference.
    """

    def __init__(self, connection: Connection, storage: CallbackStorage | None, is_python: IsPython) -> None:
        self.logger = get_logger(__name__, type(self))
        #: References are read with any storage: another process may write them.
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

    def references(self) -> References:
        """The references of one plan."""
        if self._storage is not None:
            return StorageReferences(self.chains, self._storage)
        if self.refers_large:
            return LargeReferences(self.chains, self._is_python)
        return References(self.chains)

    def extend(self, payload: Payload, ttl: int) -> None:
        """Let the chains that a job's stack refers to live for so many seconds.

        Raises:
          ConnectionClosed: if Redis cannot be reached.
        """
        if not payload.may_refer:
            return
        try:
            self.chains.keep((callback.remaining for callback in payload.stack), ttl)
        except LOST as e:
            raise ConnectionClosed(e) from None

    def release(self, plan: Plan) -> None:
        """Let chains of this run, whose last steps a plan has pushed, expire in a day.

        Raises:
          redis.ConnectionError, ServerUnavailable: if Redis cannot be reached; the chains expire later.
        """
        if plan.consumed and self.refers_large:
            for error in self.chains.release(plan.consumed):
                self.logger.warning("A stored chain that the run has passed expires late: %s", error)
