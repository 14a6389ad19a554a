"""Calls ``before_enqueue`` and ``after_enqueue`` of other middleware for steps.

A step is not pushed by ``enqueue()``, but by the script that starts its run or
acknowledges the step before it.  Middleware that adds to a message (Sentry's
trace) or keeps a record of it (Django's admin) is called for steps, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context
from typing import Any

import dramatiq

from ..wire.dialect import NOOP_CLASSES
from .message import DRAMATIQ_KEY, split_options, step_message


class StepHooks:
    """The hooks around one push of steps.

    Parameters:
      context: Where they are called; the caller's unless given.
      raising: Whether a MiddlewareError reaches the caller, as from
        ``enqueue()``; otherwise it is logged.
    """

    def __init__(self, broker: dramatiq.Broker, context: Context | None = None, *, raising: bool = False) -> None:
        self.broker = broker
        self.context = context
        self.raising = raising
        self._messages: list[tuple[dramatiq.Message[Any], int | None]] = []

    def before(self, fields: dict[str, Any], delay: float) -> None:
        """Call the ``before`` hooks of a Python step that is about to be pushed; they may add options.

        Parameters:
          fields: The payload; changed in place.
          delay: Milliseconds.
        """
        name = _actor_name(fields)
        if name not in self.broker.actors:
            return
        message = step_message(fields, name)
        waits = round(delay) if delay else None
        try:
            self._run("before", message, waits)
            explicit, others = split_options(message.options)
        except Exception:
            if self.raising:
                raise
            self.broker.logger.critical("A before_enqueue hook failed for step %s.", message, exc_info=True)
            return
        _write_options(fields, explicit, others)
        self._messages.append((message, waits))

    def after(self) -> None:
        """Call the ``after`` hooks of all steps prepared so far, once.

        Called before an advance pushes them: another thread may run a step at
        once, and a status that a middleware writes after that (Django's admin:
        "enqueued") would replace "done".
        """
        messages, self._messages = self._messages, []
        for message, delay in messages:
            self._run("after", message, delay)

    def _run(self, when: str, message: dramatiq.Message[Any], delay: int | None) -> None:
        emit = self.broker.emit_before if when == "before" else self.broker.emit_after
        if self.context is None:
            emit("enqueue", message, delay)
        else:
            self.context.run(emit, "enqueue", message, delay)


def _actor_name(fields: Mapping[str, Any]) -> Any:
    """The class of a job; for a carrier, the actor that it carries."""
    name = fields["class"]
    return fields.get("wrapped") if name in NOOP_CLASSES else name


def _write_options(fields: dict[str, Any], explicit: dict[str, Any], others: dict[str, Any]) -> None:
    """Replace the options of a payload."""
    fields.update(explicit)
    fields.pop(DRAMATIQ_KEY, None)
    if others:
        fields[DRAMATIQ_KEY] = others
