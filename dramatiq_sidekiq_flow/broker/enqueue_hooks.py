"""Whether a middleware has hooks that are called when a message is enqueued, or a step pushed."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dramatiq import Middleware

from .hook_table import is_empty

#: Seconds after which the hooks are looked up again: one may also be set later, on a middleware or its class.
RENEW = 1.0


class EnqueueHooks:
    """Looks up the enqueue hooks of a list of middleware, again when the list has changed and after :data:`RENEW`."""

    def __init__(self) -> None:
        self._searched: list[Middleware] = []
        self._found = False
        self._until = 0.0

    def found(self, middleware: Sequence[Middleware]) -> bool:
        """Return True if one of the middleware has hooks for messages and steps."""
        now = time.monotonic()
        if now > self._until or self._searched != middleware:
            self._searched, self._found = list(middleware), any(map(_has_hooks, middleware))
            self._until = now + RENEW
        return self._found


def _has_hooks(middleware: Middleware) -> bool:
    """Return True if a middleware has enqueue hooks, of its class or its own."""
    return not (is_empty(middleware, "before_enqueue") and is_empty(middleware, "after_enqueue"))
