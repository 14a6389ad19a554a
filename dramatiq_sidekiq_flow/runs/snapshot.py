"""Run as it was at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import attrs

from ..wire.mermaid import flowchart
from .run_text import count_text, moment_lines, step_lines
from .step import Progress, Step
from .step_list import StepList

RunState = Literal["running", "waiting", "paused", "failed", "stuck", "cancelled", "done"]

#: The states of a run that does not go on by itself.
AT_REST = frozenset(("done", "failed", "cancelled", "stuck"))


@attrs.frozen(repr=False, str=False)
class Run:
    """One execution of a workflow, as it was when it was read.

    Attributes:
      id: The run id.
      state: ``running``, ``waiting`` (everything open is scheduled, in retry or parked, or waits for a signal),
        ``paused``, ``failed`` (a step is dead), ``stuck`` (nothing open can move, and no step is dead),
        ``cancelled`` or ``done``.
      template: Name of its template; None without.
      tags: Its tags.
      started_at, finished_at: In UTC; None if it is not known, or not finished.
      steps: All steps by number, made when they are read; without a tree, those whose jobs exist.
      failures: The steps that are dead.
      memory: The values of its memory; {} without.
      inferred: True if the state is concluded from what is missing, since Ruby without the companion writes nothing
        at the end of a run.
      reason: Of a cancellation, or of a pause; "" without.
      repeated: Id of the run that was started to repeat it; None without.

    ``str(run)`` is its tree as text, one line per step.  Runs of ``Runs.list`` have neither steps, failures nor memory.
    """

    id: str
    state: RunState
    template: str | None
    tags: tuple[str, ...]
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress
    steps: Sequence[Step] = ()
    failures: tuple[Step, ...] = ()
    memory: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    inferred: bool = False
    reason: str = ""
    repeated: str | None = None

    @property
    def at_rest(self) -> bool:
        """True if it does not go on by itself: it is done, failed, cancelled or stuck."""
        return self.state in AT_REST

    def mermaid(self) -> str:
        """Return the tree as a Mermaid flowchart, in which steps have the class of their state; "" without a tree."""
        if not isinstance(self.steps, StepList):
            return ""
        return flowchart(self.steps.codes.tree, self.steps.state_of)

    def __str__(self) -> str:
        lines = [" ".join(["Run", self.id, *self._labels(), self.state])]
        lines.append(count_text(self.progress))
        lines += moment_lines(self.started_at, self.finished_at)
        lines += [f"reason: {self.reason}"] if self.reason else []
        return "\n".join([*lines, *step_lines(self.steps)])

    def _labels(self) -> list[str]:
        return [*([self.template] if self.template else []), *(f"#{tag}" for tag in self.tags)]

    def __repr__(self) -> str:
        done, total = self.progress.done, self.progress.total
        return f"<Run {self.id} {self.state}, {done} of {'?' if total is None else total} steps done>"
