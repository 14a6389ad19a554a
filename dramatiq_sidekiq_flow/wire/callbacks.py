"""The callback stack: what is to happen when a job is done.

On the wire ``[[barrier_id, remaining, propagate], ...]``, the last entry is
the top.  A chain pushes ``[id, {"__type__": "chain", ...}, false]``, a group
``[id, null, true]``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Optional

import attrs
import msgspec

from ..errors import InvalidCallbacks, InvalidNode, cut, shortened
from .nodes import Wire, check_depth, latest_start, total_delay
from .tree_schema import Remaining

#: Barrier ids become Redis keys, so nothing but a UUID may pass: whoever can
#: write a payload must not be able to name ``queues`` or ``dead`` as a barrier.
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

#: How many entries a stack may have.  One entry is a chain or group around the
#: step, and Ruby's JSON allows fewer than 50 of these inside each other; each
#: is a barrier that one script call looks at while Redis does nothing else.
MAX_ENTRIES = 1000

_STACK = Annotated[list[tuple[str, Optional[Remaining], bool]], msgspec.Meta(max_length=MAX_ENTRIES)]


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
      InvalidCallbacks: if it has another shape, more than 1,000 entries, or a
        barrier id that is not a UUID.
      InvalidNode: if a remaining tree is invalid: the type of a node, or what
        a job in it says of its class, args, queue, retry, ``at`` and so on.
    """
    if value is None:
        return ()
    try:
        msgspec.convert(value, _STACK)
    except (msgspec.ValidationError, RecursionError) as e:
        # A path below [..][1] is inside a remaining tree.
        kind = InvalidNode if re.search(r"\$\[\d+\]\[1\]|\[\.\.\.\]\[1\]", str(e)) else InvalidCallbacks
        raise kind(f"The callback stack cannot be read: {cut(e)}", value) from None
    for barrier, remaining, _ in value:
        if not _UUID.fullmatch(barrier):
            raise InvalidCallbacks(
                f"The callback stack cannot be read: the barrier id {shortened(barrier)} is not a UUID.", value
            )
        if remaining is not None:
            check_depth(remaining)
    return tuple(Callback(barrier, remaining, propagate) for barrier, remaining, propagate in value)


def delay_ahead(stack: tuple[Callback, ...], now: float) -> float:
    """The longest time that what remains can wait before its steps, in milliseconds.

    Parameters:
      now: Epoch seconds: a job that says ``at`` waits until then.
    """
    remaining = [callback.remaining for callback in stack if callback.remaining is not None]
    return sum(map(total_delay, remaining)) + wait_until(max(map(latest_start, remaining), default=0.0), now)


def wait_until(at: float, now: float) -> float:
    """Milliseconds from ``now`` until ``at``, both in epoch seconds; 0 where it has passed."""
    return max(0.0, at - now) * 1000


def dump_stack(stack: tuple[Callback, ...]) -> list[list[Any]]:
    """The wire form of a stack."""
    return [callback.dump() for callback in stack]
