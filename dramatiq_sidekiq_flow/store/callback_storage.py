"""Callback storages: the stack in the payload, or references to trees kept in Redis.

The payload carries what ``store`` returns under
``workflow_completion_callbacks``; ``retrieve`` reads it.  The gem calls this
``cfg.callback_storage``.
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
    """Keep the whole stack in the payload, as the gem does.  The default."""

    def store(self, callbacks: list[Entry]) -> Any:
        """Return the stack itself."""
        return callbacks

    def retrieve(self, stored: Any) -> list[Entry]:
        """Return the stack itself."""
        stack: list[Entry] = stored
        return stack


class RedisCallbackStorage:
    """Keep the rest of a long chain once, in Redis; payloads carry a reference to it.

    A step then costs the same at the beginning of a chain of thousands as at
    its end.  Ruby workers need the companion's ``SidekiqFlow::CallbackStorage``;
    Python workers read references with any storage.

    Parameters:
      min_bytes: Minimum JSON size of a rest that is kept in Redis; a smaller
        one stays in the payload.

    Raises:
      ConfigurationError: if ``min_bytes`` is below 0.
    """

    def __init__(self, min_bytes: int = MIN_BYTES) -> None:
        if min_bytes < 0:
            raise ConfigurationError(f"min_bytes must be 0 or more, not {min_bytes!r}.", min_bytes)
        self.min_bytes = min_bytes
        self._chains: StoredChains | None = None

    def bind(self, chains: StoredChains) -> None:
        """Set the chains to use.  Called by the middleware."""
        self._chains = chains

    @property
    def chains(self) -> StoredChains:
        """Stored chains of the Redis in use.

        Raises:
          ConfigurationError: if no middleware has this storage yet.
        """
        if self._chains is None:
            raise ConfigurationError(
                "This storage is not bound to a broker: pass it to WorkflowMiddleware(callback_storage=...)."
            )
        return self._chains

    def store(self, callbacks: list[Entry]) -> Any:
        """Replace each tree that is large enough by a reference."""
        with self.chains.writing() as pending:
            return [
                [barrier, None if remaining is None else self.shorten(remaining, pending), propagate]
                for barrier, remaining, propagate in callbacks
            ]

    def retrieve(self, stored: Any) -> list[Entry]:
        """Replace each reference by its tree.

        Raises:
          CallbacksMissing: if Redis does not have the tree any more.
        """
        return [
            [barrier, self.chains.whole(remaining) if remaining and is_reference(remaining) else remaining, propagate]
            for barrier, remaining, propagate in stored
        ]

    def shorten(self, remaining: Wire, pending: Pending) -> Wire:
        """Return a reference to a tree if it is large enough, else the tree.

        Adds what the reference needs in Redis to ``pending``.
        """
        return put(pending, remaining["children"]) if may_refer(remaining, self.min_bytes) else remaining


def is_custom(storage: CallbackStorage | None) -> bool:
    """Return True for a storage of the application, neither inline nor in this Redis."""
    return storage is not None and not isinstance(storage, (InlineCallbackStorage, RedisCallbackStorage))
