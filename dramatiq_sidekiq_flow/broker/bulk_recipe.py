"""How the messages of an actor are made from the items of ``send_many``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import dramatiq

from ..errors import InvalidArguments, shortened
from .sent_messages import NOTHING

_ARRAYS = frozenset((tuple, list))

#: Methods of an actor that make its messages.
_MAKERS = ("message", "message_with_options", "send", "send_with_options")


@attrs.frozen
class Recipe:
    """How the messages of an actor are made from items.

    Attributes:
      arguments: Item -> arguments; raises if it is not an item of the actor.
      is_uniform: Whether its messages differ in their arguments only.
      template: A message of it without arguments, if they do.
    """

    actor: dramatiq.Actor[Any, Any]
    options: dict[str, Any]
    arguments: Callable[[Any], tuple[Any, ...]]
    is_uniform: bool
    template: dramatiq.Message[Any] | None = attrs.field(init=False)

    @classmethod
    def of(cls, actor: dramatiq.Actor[Any, Any], options: dict[str, Any]) -> Recipe:
        """Make the recipe of an actor; one of a class of the application's own makes each message itself."""
        kind = type(actor)
        arguments = getattr(actor, "bulk_arguments", None)
        known = {dramatiq.Actor} if arguments is None else {dramatiq.Actor, _owner(kind, "bulk_arguments")}
        is_uniform = all(_owner(kind, name) in known for name in _MAKERS)
        return cls(actor, options, arguments or _positional, is_uniform)

    @template.default
    def _template(self) -> dramatiq.Message[Any] | None:
        return self.actor.message_with_options(args=(), **self.options) if self.is_uniform else None

    def message(self, item: Any, jid: str, created: float) -> dramatiq.Message[Any]:
        """Make the message of an item; without arguments of NOTHING.

        Parameters:
          created: Epoch seconds.
        """
        arguments = () if item is NOTHING else self.arguments(item)
        milliseconds = int(created * 1000)
        template = self.template
        if template is None:
            made = self.actor.message_with_options(args=arguments, **self.options)
            return made.copy(message_id=jid, message_timestamp=milliseconds)
        options = dict(template.options)
        return dramatiq.Message(
            template.queue_name,
            template.actor_name,
            arguments,
            {},
            options,
            message_id=jid,
            message_timestamp=milliseconds,
        )

    def arrays(self, items: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Make the arguments of items."""
        if self.arguments is _positional and _ARRAYS.issuperset(map(type, items)):
            return items
        return [tuple(self.arguments(item)) for item in items]


def _owner(kind: type, name: str) -> type:
    """The class that defines an attribute of another."""
    return next(base for base in kind.__mro__ if name in vars(base))


def _positional(item: Any) -> tuple[Any, ...]:
    """The arguments of a job, from an item for an actor without types."""
    if not isinstance(item, (tuple, list)):
        raise InvalidArguments(
            f"{shortened(item)} is not a tuple of arguments. Each item has the arguments of one job, by position: "
            "send_many([(1,), (2,)]).",
            item,
        )
    return tuple(item)
