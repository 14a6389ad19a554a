"""Finds the hooks of the broker's middleware that have something to do for a job.

Dramatiq calls each hook of each middleware, four times a job.  Most of them are
the empty ones of ``dramatiq.Middleware``, and some of Dramatiq's own do nothing
unless the message, its actor or the middleware sets an option.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import dramatiq
from dramatiq import Middleware

from .dramatiq_internals import OPTION_HOOKS

#: Hooks that are called for each job, by their signals.
BEFORE = {signal: f"before_{signal}" for signal in ("process_message", "ack", "nack")}
AFTER = {signal: f"after_{signal}" for signal in ("process_message", "skip_message", "ack", "nack")}

JOB_HOOKS = (*BEFORE.values(), *AFTER.values())

#: Seconds after which the hooks are looked up again, with a fetch.
RENEW = 1.0

#: A process that waits for jobs looks up the hooks of so many actors before they are old.
PREPARED = 16

#: Middleware with a hook, and True if the hook does nothing for a message without options.
Hooks = tuple[tuple[Middleware, bool], ...]

#: A hook and each actor -> the middleware to call.
Table = dict[str, dict[str, Hooks]]

F = TypeVar("F", bound=Callable[..., Any])


class HookTable:
    """For each hook of a job and each actor: the middleware to call, in this order.

    It is made anew when the list of middleware changes, when an actor is declared,
    and with a fetch after :data:`RENEW` seconds: a hook or an option may also be
    set later, on a middleware, its class or an actor.  A consumer that waits for jobs
    does it before, so that the next job need not wait for it.

    Attributes:
      own: The broker's own middleware, around all others.
      broker: Whose hooks they are; None before it is made.
    """

    def __init__(self) -> None:
        self.own: Middleware | None = None
        self.broker: dramatiq.Broker | None = None
        self._table: tuple[list[Middleware], Table]
        self._made: float
        self._renew([])

    def of(self, hook: str, broker: dramatiq.Broker, actor_name: str) -> Hooks:
        """Find the middleware of a broker to call for a message of an actor."""
        seen, table = self._table
        if seen != broker.middleware:
            table = self._renew(broker.middleware)
        found = table[hook].get(actor_name)
        if found is None:
            found = self._find(hook, broker, actor_name)
            if actor_name in broker.actors:
                # Other names come from payloads: their number has no limit.
                table[hook][actor_name] = found
        return found

    def _find(self, hook: str, broker: dramatiq.Broker, actor_name: str) -> Hooks:
        every = [] if self.own is None else [self.own]
        every += broker.middleware
        if hook.startswith("after"):
            every.reverse()
        actor = broker.actors.get(actor_name)
        return tuple((each, is_idle(each, hook, actor)) for each in every if not is_empty(each, hook))

    def age(self) -> None:
        """Look the hooks up again if they are old.  Called with each fetch."""
        if time.monotonic() - self._made > RENEW:
            self.forget()

    def prepare(self) -> None:
        """Look the hooks up again before they are old.  Called while a consumer waits for jobs."""
        broker = self.broker
        if broker is None or time.monotonic() - self._made <= RENEW / 2:
            return
        before = self._table
        middleware, made = list(broker.middleware), time.monotonic()
        table: Table = {}
        for hook, known in before[1].items():
            names = list(known)[:PREPARED]
            table[hook] = {name: self._find(hook, broker, name) for name in names}
        if self._table is before:
            self._table, self._made = (middleware, table), made

    def forget(self) -> None:
        """Look the hooks up again."""
        self._renew(self._table[0])

    def _renew(self, middleware: list[Middleware]) -> Table:
        table: Table = {hook: {} for hook in JOB_HOOKS}
        self._table = (list(middleware), table)
        self._made = time.monotonic()
        return table


def for_other_brokers(hook: F) -> F:
    """Mark a hook of a middleware that does nothing on a SidekiqBroker, which then does not call it."""
    hook.__dict__["for_other_brokers"] = True
    return hook


def is_empty(middleware: Middleware, hook: str) -> bool:
    """Return True if a hook of a middleware does nothing: it is the one of ``dramatiq.Middleware``, or marked so."""
    function = _function(middleware, hook)
    return function is getattr(Middleware, hook) or getattr(function, "for_other_brokers", False) is True


def is_idle(middleware: Middleware, hook: str, actor: dramatiq.Actor[Any, Any] | None) -> bool:
    """Return True if a hook is one of Dramatiq's that does nothing for a message without options."""
    found = OPTION_HOOKS.get((type(middleware), hook))
    if found is None or actor is None or _function(middleware, hook) is not found.function:
        return False
    return not any(actor.options.get(name) or getattr(middleware, name, None) for name in found.options)


def _function(middleware: Middleware, hook: str) -> Any:
    return getattr(getattr(middleware, hook, None), "__func__", None)
