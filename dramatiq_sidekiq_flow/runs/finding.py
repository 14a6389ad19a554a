"""What holds up open steps of a run, where they are, and the cure."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import attrs

from .step import StepState

Cause = Literal[
    "runs",
    "queued",
    "scheduled",
    "retry",
    "signal",
    "parked",
    "after_others",
    "elsewhere",
    "dead",
    "job_gone",
    "barrier_gone",
    "unknown_actor",
    "unknown_class",
    "no_consumer",
    "queue_paused",
    "dead_worker",
    "suspect",
    "silent_ruby",
    "unseen_in_ruby",
    "lost_in_ruby",
    "lost",
]

#: ``moves``: it goes on by itself, now.  ``waits``: it goes on by itself, later.  ``blocked``: not without a person.
Outlook = Literal["moves", "waits", "blocked"]

#: Numbers of steps that a finding names, at most.
MOST_NUMBERS = 20


@attrs.frozen
class Finding:
    """What is known of open steps that are alike.

    Attributes:
      cause: What holds them up: ``runs``, ``queued``, ``scheduled``, ``retry``, ``signal`` (its signal has not
        come), ``parked`` (its run is paused), ``after_others`` (its turn has not come), ``elsewhere`` (on another
        broker, where it is not searched for), ``dead``, ``job_gone`` (dead, and its job was deleted from ``dead``),
        ``barrier_gone``, ``unknown_actor``, ``unknown_class``, ``no_consumer``, ``queue_paused``, ``dead_worker``,
        ``suspect``, ``silent_ruby`` (a Ruby process has it, and has not beaten for long), ``unseen_in_ruby`` (begun
        in Ruby a moment ago, or lost), ``lost_in_ruby``, ``lost``.
      outlook: ``moves``, ``waits`` (goes on by itself later), or ``blocked`` (needs a person).
      state: Of the steps, as in ``Step.state``.
      name, queue: Actor or class, and queue; "" if it is not known.
      count: Number of steps.
      numbers: Of the steps, the first 20.
      where: The place of their jobs.
      why: Why they wait, or cannot move.
      cures: What to do, each a command or a sentence; empty if nothing is to do.
      since: When the first of them came there, in UTC; None if it is not known.
      due: When the first of them is due; None if none is.
    """

    cause: Cause
    outlook: Outlook
    state: StepState
    name: str
    queue: str
    count: int
    numbers: tuple[int, ...]
    where: str
    why: str
    cures: tuple[str, ...] = ()
    since: datetime | None = None
    due: datetime | None = None

    @property
    def label(self) -> str:
        """The steps in words: ``step 3 'report'``, ``41 steps 'extract' from 2 on``."""
        name = f" {self.name!r}" if self.name else ""
        if self.count != 1:
            first = f" from {self.numbers[0]} on" if self.numbers else ""
            return f"{self.count:,} steps{name}{first}"
        return f"step {self.numbers[0]}{name}" if self.numbers else f"a step{name}"


@attrs.frozen
class Case:
    """What is known of one step: a finding without the step."""

    cause: Cause
    outlook: Outlook
    where: str
    why: str
    cures: tuple[str, ...] = ()
    since: datetime | None = None
    due: datetime | None = None
