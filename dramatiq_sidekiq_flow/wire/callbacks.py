"""The callback stack: what is to happen when a job is done.

On the wire ``[[barrier_id, remaining, propagate], ...]``, the last entry is
the top.  A chain pushes ``[id, {"__type__": "chain", ...}, false]``, a group
``[id, null, true]``.
"""

from __future__ import annotations

import re
from typing import Any, Optional

import attrs
import msgspec

from ..errors import InvalidCallbacks, InvalidNode
from .nodes import Wire, total_delay
from .shapes import Remaining

#: Barrier ids become Redis keys, so nothing but a UUID may pass: whoever can
#: write a payload must not be able to name ``queues`` or ``dead`` as a barrier.
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_STACK = list[tuple[str, Optional[Remaining], bool]]


@attrs.frozen
class Callback:
    """One entry of the stack.

    Attributes:
      barrier: The barrier's id, a UUID, also its Redis key.
      remaining: What to run when the barrier releases, in wire form, or a
        reference to it (``wire.references``).
      propagate: Whether the next entry below is then counted down, too.
    """

    barrier: str
    remaining: Wire | None
    propagate: bool

    def dump(self) -> list[Any]:
        """The entry in its wire form."""
        return [self.barrier, self.remaining, self.propagate]


def load_stack(value: Any) -> tuple[Callback, ...]:
    """Read a stack; None is an empty one.

    Raises:
      InvalidCallbacks: for any other shape, or a barrier id that is no UUID.
      InvalidNode: for a remaining tree that is none.
    """
    if value is None:
        return ()
    try:
        msgspec.convert(value, _STACK)
    except (msgspec.ValidationError, RecursionError) as e:
        # A path below [..][1] is inside a remaining tree.
        kind = InvalidNode if re.search(r"\$\[\d+\]\[1\]|\[\.\.\.\]\[1\]", str(e)) else InvalidCallbacks
        raise kind(f"The callback stack cannot be read: {e}", value) from None
    for barrier, _, _ in value:
        if not _UUID.fullmatch(barrier):
            raise InvalidCallbacks(f"The callback stack cannot be read: the barrier id {barrier!r} is no UUID.", value)
    return tuple(Callback(barrier, remaining, propagate) for barrier, remaining, propagate in value)


def delay_ahead(stack: tuple[Callback, ...]) -> float:
    """The longest time that the delays in what remains can add up to, in milliseconds."""
    return sum(total_delay(callback.remaining) for callback in stack if callback.remaining is not None)


def dump_stack(stack: tuple[Callback, ...]) -> list[list[Any]]:
    """The wire form of a stack."""
    return [callback.dump() for callback in stack]
