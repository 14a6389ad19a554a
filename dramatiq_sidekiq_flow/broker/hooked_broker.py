"""A Dramatiq broker that calls only the hooks that have something to do."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq import Middleware
from dramatiq.middleware import MiddlewareError

from .hook_table import AFTER, BEFORE, HookTable


class HookedBroker(dramatiq.Broker):
    """A broker with a middleware of its own around all others, and less work to call hooks.

    The hooks of a job that do nothing are left out (:class:`HookTable`); which
    are called, their order and what follows from their errors are Dramatiq's.

    Parameters:
      own: It is not in the list of middleware: `before` and `after` of
        add_middleware do not see it.
    """

    def __init__(self, middleware: list[Middleware], own: Middleware, hooks: HookTable) -> None:
        self._own = own
        self._hooks = hooks
        hooks.own, hooks.broker = own, self
        super().__init__(middleware=middleware)

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook of the broker's own middleware, then of each middleware in order."""
        hook = BEFORE.get(signal)
        if hook is None:
            self._follow(f"before_{signal}", *args, **kwargs)
            super().emit_before(signal, *args, **kwargs)
            return
        message = args[0]
        for middleware, idle in self._hooks.of(hook, self, message.actor_name):
            if idle and not message.options:
                continue
            try:
                getattr(middleware, hook)(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self._log_failure(hook, middleware)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook of each middleware in reverse order, then of the broker's own."""
        hook = AFTER.get(signal)
        if hook is None:
            super().emit_after(signal, *args, **kwargs)
            self._follow(f"after_{signal}", *args, **kwargs)
            return
        message = args[0]
        for middleware, idle in self._hooks.of(hook, self, message.actor_name):
            if idle and not message.options:
                continue
            try:
                getattr(middleware, hook)(self, *args, **kwargs)
            except Exception:
                self._log_failure(hook, middleware)

    def _follow(self, hook: str, *args: Any, **kwargs: Any) -> None:
        try:
            getattr(self._own, hook)(self, *args, **kwargs)
        except MiddlewareError:
            raise
        except Exception:
            self._log_failure(hook, self._own)

    def _log_failure(self, hook: str, middleware: Middleware) -> None:
        # The words of Dramatiq.
        self.logger.critical("Unexpected failure in %s of %r.", hook, middleware, exc_info=True)
