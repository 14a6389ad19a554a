"""Outcomes of the scripts, as values, and the operations that give them.

A reply of a script is read here and in the modules of ``store`` that send it;
code above matches on these types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs

from ..errors import BarrierExpired, WrongType
from .connection import Connection
from .scripts import Command

T = TypeVar("T")


@attrs.frozen
class Operation(Generic[T]):
    """A command, and how its reply is read.  Safe to send twice.

    Attributes:
      read: Reply -> value; raises what the reply refuses.
    """

    command: Command
    read: Callable[[Any], T]

    def run(self, connection: Connection) -> T:
        """Send the command by itself.

        Raises:
          redis.ConnectionError, ServerUnavailable: if Redis cannot be reached.
        """
        return self.read(connection.call(*self.command))


@attrs.frozen
class Done:
    """All is written."""


@attrs.frozen
class Kept:
    """All is written, and the next job is in flight here, under the receipt that was offered.

    Attributes:
      payload: The job, if an earlier call kept it; None if it is that of the plan.
    """

    payload: bytes | None = None


@attrs.frozen
class Gone:
    """The job is not in flight here: it was acknowledged before, or recovered by another worker."""


@attrs.frozen
class RunCancelled:
    """All is written, and the run is cancelled: nothing of it starts."""


@attrs.frozen
class NeedsPlan:
    """Nothing is written: a callback fires whose plan was not sent.

    Attributes:
      index: Which one, counted from the top of the stack; 1 is the top.
    """

    index: int


@attrs.frozen
class Fires:
    """All is written; the caller enqueues the rest of the plan, and then marks the barriers as fired."""


@attrs.frozen
class StageLost:
    """Nothing is written: the staged fan-out expired before its commit.  Stage it again."""


@attrs.frozen
class AlreadyStarted:
    """Nothing is written: a run of that id was started before."""


@attrs.frozen
class Taken:
    """Nothing is written: another run, which lives, has the unique key."""

    run_id: str


Outcome = Done | Kept | Gone | RunCancelled | NeedsPlan | Fires | StageLost | AlreadyStarted | Taken

DONE, GONE, KEPT = Done(), Gone(), Kept()

_FIXED: dict[bytes, Outcome] = {
    b"DONE": DONE,
    b"GONE": GONE,
    b"CANCELLED": RunCancelled(),
    b"FIRE": Fires(),
    b"STAGE": StageLost(),
    b"STARTED": AlreadyStarted(),
}


def read_outcome(reply: list[Any]) -> Outcome:
    """Read the reply of a script that starts or advances a run.

    Raises:
      BarrierExpired: if a barrier of the callback stack is gone.
      WrongType: if a key that the script needs holds another type.
    """
    kind = reply[0]
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed
    if kind == b"KEPT":
        return Kept(reply[1]) if len(reply) > 1 else KEPT
    if kind == b"PLAN":
        return NeedsPlan(int(reply[1]))
    if kind == b"TAKEN":
        return Taken(reply[1].decode("utf-8", "surrogateescape"))
    if kind == b"EXPIRED":
        raise barrier_expired(reply[1].decode())
    raise wrong_type(reply[1])


def barrier_expired(barrier: str) -> BarrierExpired:
    """The error for a barrier that is gone."""
    return BarrierExpired(
        f"The barrier {barrier} is gone, so the run cannot continue from here: it expired, or it was deleted. The "
        "step itself is done; a retry runs it again, and ends here again. To start what remains of the run "
        "without it: python -m dramatiq_sidekiq_flow release app:broker JID, or restart_remaining(broker, jid).",
        barrier,
    )


def wrong_type(key: bytes, effect: str = "") -> WrongType:
    """The error for a key that holds another type than it should.

    Parameters:
      effect: Clause that names the consequence, such as ``, so a fan-out waits``.
    """
    return WrongType(f"The Redis key {key.decode('utf-8', 'replace')!r} holds another type{effect}. Remove it.", key)


def read_written(reply: list[Any]) -> None:
    """Read the reply of a script that ends a job, here or in an earlier call.

    Raises:
      WrongType: if a key that the script needs holds another type.
    """
    if reply[0] == b"TYPE":
        raise wrong_type(reply[1])


def read_unless_staged(reply: list[Any]) -> bool:
    """As :func:`read_written`; return False if the staged fan-out of its plan is gone, and nothing is written."""
    read_written(reply)
    return bool(reply[0] != b"STAGE")


def read_nothing(reply: Any) -> None:
    """Ignore a reply."""
