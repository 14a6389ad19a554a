"""Finds the middleware that has a hook of its own.

Dramatiq calls each hook of each middleware, four times a job, and most of them
are the empty ones of ``dramatiq.Middleware``.  For the signals of a job the
broker calls only the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from dramatiq import Middleware

#: Hooks that are called for each job.
JOB_HOOKS = frozenset(
    f"{when}_{signal}" for when in ("before", "after") for signal in ("process_message", "skip_message", "ack", "nack")
)

#: Seconds after which the hooks are looked up again, with a fetch.
RENEW = 1.0


def is_empty(middleware: object, hook: str) -> bool:
    """Return True if a hook of a middleware is the one of ``dramatiq.Middleware``, which does nothing."""
    function = getattr(getattr(middleware, hook, None), "__func__", None)
    return function is not None and function is getattr(Middleware, hook, None)


class HookTable:
    """For each hook of a job, the middleware that has one, in the order of the calls.

    It is made anew when the list of middleware changes, and with a fetch after
    :data:`RENEW` seconds: a hook may also be set on a middleware or its class.

    Attributes:
      own: The broker's own middleware, around all others.
    """

    def __init__(self) -> None:
        self.own: Sequence[Middleware] = ()
        self._table: tuple[list[Middleware], dict[str, tuple[Middleware, ...]]] = ([], {})
        self._made = 0.0

    def of(self, hook: str, middleware: list[Middleware]) -> tuple[Middleware, ...]:
        """Find those of the broker's middleware that have a hook of their own."""
        seen, hooks = self._table
        if seen != middleware:
            hooks = self._renew(middleware)
        found = hooks.get(hook)
        if found is None:
            every = [*self.own, *middleware]
            if hook.startswith("after"):
                every.reverse()
            found = hooks[hook] = tuple(each for each in every if not is_empty(each, hook))
        return found

    def age(self) -> None:
        """Look the hooks up again if they are old.  Called with each fetch."""
        if time.monotonic() - self._made > RENEW:
            self._renew(self._table[0])

    def _renew(self, middleware: list[Middleware]) -> dict[str, tuple[Middleware, ...]]:
        hooks: dict[str, tuple[Middleware, ...]] = {}
        self._table = (list(middleware), hooks)
        self._made = time.monotonic()
        return hooks
