"""An open step of a run, and what was found of it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import attrs

from ..store import keys
from .sightings import Sighting
from .snapshot import RunState
from .step import Step
from .step_list import utc


@attrs.frozen
class Patient:
    """An open step, and what was found of it.

    Attributes:
      seen: Its job; None if no job was found.
      is_ruby: True if Ruby runs it.
      run_state: Of its run.
      barriers_gone: The barriers in its callback stack that do not exist.
    """

    run_id: str
    run_state: RunState
    step: Step
    seen: Sighting | None
    is_ruby: bool
    barriers_gone: Collection[str] = ()

    @property
    def queued_at(self) -> datetime | None:
        """When its job was pushed to its queue."""
        return utc(getattr(self.seen, "queued_at", None))

    @property
    def kind(self) -> str:
        """The kind of the place of its job; "" if no job was found, or only at a thread."""
        return getattr(self.seen, "kind", "")

    @property
    def member(self) -> str:
        """The worker and queue that have its job in flight; "" in other places."""
        return getattr(self.seen, "member", "")

    @property
    def worker(self) -> str:
        """``HOST:PID:NONCE`` of the process that has its job in flight."""
        return keys.identity_of(self.member)

    @property
    def is_suspect(self) -> bool:
        """True if its job waits for its trial."""
        return getattr(self.seen, "is_suspect", False)

    @property
    def error(self) -> str:
        """First line of its last error."""
        return next(iter((self.step.error or "").splitlines()), "no error")

    def fix(self, how: str) -> str:
        """The doctor's command for its run."""
        return f"sidekiq-flow doctor {self.run_id} --fix {how} --yes"

    @property
    def wrong_name(self) -> str:
        """The cure of a step whose name, or queue, is a wrong one."""
        return f"If the name is wrong, correct it, and start the run again: {self.fix('cancel')}"

    @property
    def start_again(self) -> tuple[str, str]:
        """The cures of a step whose job is nowhere."""
        return (
            f"Start the workflow again, and end this run: {self.fix('cancel')}",
            f"Or record the step as failed: {self.fix('fail')}",
        )
