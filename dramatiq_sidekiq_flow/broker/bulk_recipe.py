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
    """

    actor: dramatiq.Actor[Any, Any]
    options: dict[str, Any]
    arguments: Callable[[Any], tuple[Any, ...]]
    is_uniform: bool

    @classmethod
    def of(cls, actor: dramatiq.Actor[Any, Any], options: dict[str, Any]) -> Recipe:
        """Make the recipe of an actor; one of a class of the application's own makes each message itself."""
        arguments = getattr(actor, "bulk_arguments", None)
        if arguments is not None:
            return cls(actor, options, arguments, True)
        kind = type(actor)
        is_uniform = all(getattr(kind, name) is getattr(dramatiq.Actor, name) for name in _MAKERS)
        return cls(actor, options, _positional, is_uniform)

    def message(self, item: Any) -> dramatiq.Message[Any]:
        """Make the message of an item; without arguments of NOTHING."""
        arguments = () if item is NOTHING else self.arguments(item)
        return self.actor.message_with_options(args=arguments, **self.options)

    def arrays(self, items: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Make the arguments of items."""
        if self.arguments is _positional and _ARRAYS.issuperset(map(type, items)):
            return items
        return [tuple(self.arguments(item)) for item in items]


def _positional(item: Any) -> tuple[Any, ...]:
    """The arguments of a job, from an item for an actor without types."""
    if not isinstance(item, (tuple, list)):
        raise InvalidArguments(
            f"{shortened(item)} is not a tuple of arguments. Each item has the arguments of one job, by position: "
            "send_many([(1,), (2,)]).",
            item,
        )
    return tuple(item)
