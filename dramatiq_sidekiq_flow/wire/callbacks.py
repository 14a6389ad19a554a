"""The callback stack of a job: the callbacks that are due after it.

On the wire it is ``[[barrier_id, remaining, propagate], ...]``; the last entry is
the top.  A chain pushes ``[id, {"__type__": "chain", ...}, false]``, a group
``[id, null, true]``.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import attrs

from ..errors import InvalidArguments, InvalidCallbacks, InvalidNode, cut, shortened
from . import codec
from .nodes import Wire, check_depth
from .tree_schema import stack_error
from .tree_times import completes_at_once, latest_start, total_delay

#: Barrier ids become Redis keys, so only UUIDs are accepted: a payload must not
#: be able to name ``queues`` or ``dead`` as a barrier.
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@attrs.frozen
class Callback:
    """One entry of the stack.

    Attributes:
      barrier: The barrier's id, a UUID, also its Redis key.
      remaining: The tree to run when the barrier releases, in wire form, or a
        reference to it (``wire.references``).
      propagate: True if the release also counts down the entry below.
    """

    barrier: str
    remaining: Wire | None
    propagate: bool

    @property
    def kind(self) -> Literal["f", "n", "s"]:
        """The effect of the barrier's release.

        ``f`` fires a continuation, ``n`` has none and continues with the next
        entry, ``s`` has none and stops.
        """
        if self.remaining is None:
            return "n" if self.propagate else "s"
        # A remaining tree that has nothing to run completes at once, so the walk continues.
        return "n" if completes_at_once(self.remaining) else "f"

    def dump(self) -> list[Any]:
        """Convert the entry to its wire form."""
        return [self.barrier, self.remaining, self.propagate]


def load_stack(value: Any) -> tuple[Callback, ...]:
    """Read a stack in wire form; None means an empty stack.

    Raises:
      InvalidCallbacks: if it is not a list of such entries, has more than 1,000
        entries, or a barrier id that is not a UUID.
      InvalidNode: if a remaining tree is invalid: the type of a node, or a
        job's class, args, queue, retry, ``at`` and so on.
    """
    global _last_of_group
    if value is None:
        return ()
    written = _written_of_group(value)
    # Read once: another thread may replace it.
    last_written, last_stack = _last_of_group
    if written and written == last_written:
        return last_stack
    stack = _read(value)
    if written:
        _last_of_group = (written, stack)
    return stack


#: The last stack of a step of a group, as JSON and as it was read: all steps of a group carry the same.
_last_of_group: tuple[bytes, tuple[Callback, ...]] = (b"", ())


def _written_of_group(value: Any) -> bytes:
    """Write a stack, which was not checked yet, as JSON, if the callback of a group is at its top; else b""."""
    top = value[-1] if type(value) is list and value else None
    if type(top) is not list or len(top) != 3 or top[1] is not None:
        return b""
    try:
        return codec.encode(value)
    except InvalidArguments:
        return b""


def _read(value: Any) -> tuple[Callback, ...]:
    error = stack_error(value)
    if error is not None:
        # A path below [..][1] is inside a remaining tree.
        kind = InvalidNode if re.search(r"\$\[\d+\]\[1\]|\[\.\.\.\]\[1\]", error) else InvalidCallbacks
        raise kind(f"The callback stack cannot be read: {cut(error)}", value)
    for barrier, remaining, _ in value:
        if not _UUID.fullmatch(barrier):
            raise InvalidCallbacks(
                f"The callback stack cannot be read: the barrier id {shortened(barrier)} is not a UUID.", value
            )
        if remaining is not None:
            check_depth(remaining)
    return tuple(Callback(barrier, remaining, propagate) for barrier, remaining, propagate in value)


def any_delay(stack: tuple[Callback, ...]) -> bool:
    """Return False if no remaining tree of a stack can hold a delay: they are references without one."""
    for callback in stack:
        tree = callback.remaining
        if tree is not None and (tree["__type__"] != "reference" or "delay" in tree):
            return True
    return False


def delay_ahead(stack: tuple[Callback, ...], now: float) -> float:
    """Compute the longest sum of the delays in the remaining trees of a stack, in milliseconds.

    Parameters:
      now: Epoch seconds, to which the ``at`` of a job is compared.
    """
    remaining = [callback.remaining for callback in stack if callback.remaining is not None]
    delays = sum(map(total_delay, remaining))
    latest = max(map(latest_start, remaining), default=0.0)
    return delays + wait_until(latest, now)


def wait_until(at: float, now: float) -> float:
    """Compute the milliseconds from ``now`` until ``at``, both in epoch seconds; 0 if ``at`` is past."""
    return max(0.0, at - now) * 1000


def dump_stack(stack: tuple[Callback, ...]) -> list[list[Any]]:
    """Convert a stack to its wire form."""
    return [callback.dump() for callback in stack]
