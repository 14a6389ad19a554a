"""Where a job's callback stack is kept: in its payload, or by reference beside it.

What ``store`` returns is written into the payload under
``workflow_completion_callbacks``; ``retrieve`` gives the stack back.  It is the
gem's ``cfg.callback_storage``.
"""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError
from ..protocols import CallbackStorage, Entry
from ..wire.nodes import Wire
from ..wire.references import is_reference, may_refer
from .chains import Pending, StoredChains, put

#: Bytes of JSON from which a reference takes the place of a tree.
MIN_BYTES = 2048


class InlineCallbackStorage:
    """The whole stack in the payload, as the gem has it.  The default."""

    def store(self, callbacks: list[Entry]) -> Any:
        """The stack itself."""
        return callbacks

    def retrieve(self, stored: Any) -> list[Entry]:
        """The stack itself."""
        stack: list[Entry] = stored
        return stack


class RedisCallbackStorage:
    """What remains of long chains is kept once, in Redis, and payloads refer to it.

    A step then costs the same at the beginning of a chain of thousands as at
    its end.  Ruby workers need the companion file's ``SidekiqFlow::CallbackStorage``;
    Python workers read references whatever storage they have.

    Parameters:
      min_bytes: The JSON size from which the rest of a chain is stored; a
        shorter one travels in the payload.

    Raises:
      ConfigurationError: for a ``min_bytes`` below 0.
    """

    def __init__(self, min_bytes: int = MIN_BYTES) -> None:
        if min_bytes < 0:
            raise ConfigurationError(f"min_bytes must be 0 or more, not {min_bytes!r}.", min_bytes)
        self.min_bytes = min_bytes
        self._chains: StoredChains | None = None

    def bind(self, chains: StoredChains) -> None:
        """Use these chains.  Called by the middleware."""
        self._chains = chains

    @property
    def chains(self) -> StoredChains:
        """The stored chains of the Redis in use.

        Raises:
          ConfigurationError: before a broker was set up with this storage.
        """
        if self._chains is None:
            raise ConfigurationError(
                "This storage is not bound to a broker: pass it to WorkflowMiddleware(callback_storage=...)."
            )
        return self._chains

    def store(self, callbacks: list[Entry]) -> Any:
        """The stack, with a reference in place of each tree that is large enough."""
        with self.chains.writing() as pending:
            return [
                [barrier, None if remaining is None else self.shorten(remaining, pending), propagate]
                for barrier, remaining, propagate in callbacks
            ]

    def retrieve(self, stored: Any) -> list[Entry]:
        """The stack, with the whole tree in place of each reference.

        Raises:
          CallbacksMissing: for a reference to what is gone.
        """
        return [
            [barrier, self.chains.whole(remaining) if remaining and is_reference(remaining) else remaining, propagate]
            for barrier, remaining, propagate in stored
        ]

    def shorten(self, remaining: Wire, pending: Pending) -> Wire:
        """A reference to a tree where that is worth it, else the tree.

        What the reference needs in Redis is added to ``pending``.
        """
        return put(pending, remaining["children"]) if may_refer(remaining, self.min_bytes) else remaining


def is_custom(storage: CallbackStorage | None) -> bool:
    """Whether a storage is the application's own, neither inline nor in this Redis."""
    return storage is not None and not isinstance(storage, (InlineCallbackStorage, RedisCallbackStorage))
