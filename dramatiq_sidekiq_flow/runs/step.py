"""Progress and steps of a run."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import attrs

StepState = Literal[
    "done",
    "running",
    "queued",
    "scheduled",
    "signal",
    "retry",
    "dead",
    "pending",
    "unknown",
    "lost",
    "cancelled",
    "parked",
    "skipped",
]


@attrs.frozen
class Progress:
    """Numbers of steps.

    Attributes:
      total: All but those of fallbacks that do not run; None if the tree of the run is not known.
      done: Done, also those that are inferred to be.
      running: Being run.
      waiting: In a queue, scheduled, in retry or parked, or waiting for a signal.
      failed: Dead.

    In a run of ``Runs.list``, ``running`` and ``waiting`` are None: nothing was looked up.
    """

    total: int | None
    done: int
    running: int | None
    waiting: int | None
    failed: int


@attrs.frozen
class Step:
    """One step of a run.

    Attributes:
      number: Its place in the tree, in written order from 1, and behind the last one for a step that was added
        while the run ran (``Replace``); None if it is not known.
      path: The positions of its ancestors in their chains and groups, such as ``1.3.2``, below that of the step
        that their tree has replaced; "" if it is not known.
      name: Actor or Ruby class.
      queue: Its queue; "" if it is not known.
      state: ``done``; ``running``; ``queued``; ``scheduled`` (delayed, not due); ``signal`` (a
        WaitFor whose signal has not come); ``retry`` (failed, will run
        again); ``dead``; ``pending`` (its turn has not come); ``unknown`` (a step of Ruby without the companion
        whose job was not found: done, or begun a moment ago, or lost with its process); ``lost`` (its job should
        exist and was not found); ``cancelled``; ``parked`` (its run is paused); ``skipped`` (in a fallback that
        does not run).
      jid: The id of its job; "" if it is not known.
      attempts: Number of times that it was begun.
      started_at, ended_at: When its last attempt began, and when it was done or dead.
      due_at: When it is due, if it is scheduled or in retry; until when it waits for a signal.
      worker: ``HOST:PID:NONCE`` of the process that runs or ran it; "" if it is not known.
      error: ``ErrorClass: message`` of its last failure, if it is dead or in retry.
      args: Its arguments as text, shortened; "" if they are not recorded.
      inferred: True if no mark says that it is done: a later step exists, or the run is done.
    """

    number: int | None
    path: str
    name: str
    queue: str
    state: StepState
    jid: str = ""
    attempts: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    worker: str = ""
    error: str | None = None
    args: str = ""
    inferred: bool = False
