"""What the scripts write to the record of a run (``_record.lua``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import attrs

from .scripts import Argument


# A tuple, since each step needs one.
class StepRecord(NamedTuple):
    """What the record of a run holds of one step.

    Attributes:
      key: The record; "" for a job without a run, or if records are off.
      text: Number of the step in its tree, from 1, and, below :data:`MOST_TIMED`, its start, its end (epoch
        seconds), the number of failed attempts before, and the identity of the process,
        separated by spaces; "!" before it if there were failed attempts.  For a step without a number "", or
        "!" and :func:`death_key` of it.
    """

    key: str = ""
    text: str = ""


#: Prefix of the fields of deaths that have no number, but a jid.
BY_JID = "jid:"


def death_key(number: int | None, jid: str) -> int | str:
    """Field of the death of a step in its record: its number, or its jid in a run that Ruby started."""
    return BY_JID + jid if number is None else number


def deaths_by_jid(fields: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """Read the deaths of steps without numbers, by their jids, among the fields of ``swf:flow:ID:failed``."""
    prefix = BY_JID.encode()
    found = [(name, value) for name, value in fields.items() if name.startswith(prefix)]
    return {name.removeprefix(prefix).decode("utf-8", "surrogateescape"): value for name, value in found}


#: Number of the first step whose times are not recorded: a hash of all steps of a large run is large.
MOST_TIMED = 1000

#: A step of a run without a record.
NO_STEP = StepRecord()


@attrs.frozen
class Death:
    """What the record of a run holds of a step that goes to ``dead``.

    Attributes:
      key: The record; "" for none.
      number: Number of the step, or :func:`death_key` of one without a number; "" for none.
      failure: JSON object: jid, class, queue, error_class, error_message, at (epoch seconds).
      ran: Number of steps that run in its place.
    """

    key: str = ""
    number: int | str = ""
    failure: bytes = b""
    ran: int = 0


#: A job that is not a step, or has no record.
NO_DEATH = Death()


@attrs.frozen
class RunRecord:
    """The record of a run that starts.

    Attributes:
      key: The record; "" for none.
      state: ``running``; ``done`` if no step is to run.
      started: Epoch seconds.
      ttl: Seconds that it lives, unless it is prolonged.
      total: Number of steps.
      fields: Further fields of the hash.
      lists: Names of the sorted sets ``swf:flows:NAME`` that list the run, in addition to the one of its state.
      unique: Key that no other run may have while this one lives; "" for none.
      deadline: Seconds after the start at which it is cancelled; None for none.
      needed: True if the run must not start without a record.
    """

    key: str = ""
    state: str = "running"
    started: float = 0.0
    ttl: int = 0
    total: int = 0
    fields: Mapping[str, Argument] = {}
    lists: Sequence[str] = ()
    unique: str = ""
    deadline: float | None = None
    needed: bool = False

    def arguments(self) -> tuple[Argument, ...]:
        """The arguments of ``start.lua`` (``_new_record.lua``)."""
        flat = (part for pair in self.fields.items() for part in pair)
        return (
            self.state,
            f"{self.started:.3f}",
            self.ttl,
            self.total,
            len(self.fields),
            *flat,
            len(self.lists),
            *self.lists,
            self.unique,
            "" if self.deadline is None else self.deadline,
            int(self.needed),
        )


NO_RUN = RunRecord()
