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
      key: The record; "" for a step of a run without one.
      number: Number of the step in its tree, from 1; "" if its payload has none.
      times: Its start, its end (epoch seconds), the number of failed attempts before, and the
        identity of the process, separated by spaces.
      had_failed: "1" if it failed before, else "".
    """

    key: str = ""
    number: int | str = ""
    times: str = ""
    had_failed: str = ""


#: A step of a run without a record.
NO_STEP = StepRecord()


@attrs.frozen
class RunRecord:
    """The record of a run that starts.

    Attributes:
      key: The record; "" for none.
      state: ``running``; ``done`` if no step is to run.
      ttl: Seconds that it lives, unless it is prolonged.
      total: Number of steps.
      fields: Further fields of the hash.
      lists: Names of the sorted sets ``swf:flows:NAME`` that list the run, in addition to the one of its state.
    """

    key: str = ""
    state: str = "running"
    ttl: int = 0
    total: int = 0
    fields: Mapping[str, Argument] = {}
    lists: Sequence[str] = ()

    def arguments(self) -> tuple[Argument, ...]:
        """The arguments of ``start.lua`` (``_new_record.lua``)."""
        flat = (part for pair in self.fields.items() for part in pair)
        return (self.state, self.ttl, self.total, len(self.fields), *flat, len(self.lists), *self.lists)


NO_RUN = RunRecord()
