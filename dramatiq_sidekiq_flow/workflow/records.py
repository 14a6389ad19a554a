"""Records of runs: what the scripts of a start, an advance and a death write to them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs

from ..errors import InvalidWorkflow
from ..process.heartbeat import Heartbeat
from ..store import keys
from ..store.scripts import Argument
from ..store.step_records import MOST_TIMED, NO_DEATH, NO_RUN, NO_STEP, Death, RunRecord, StepRecord, death_key
from ..wire import codec
from ..wire.nodes import Wire
from ..wire.payload import Payload
from ..wire.payload_fields import is_callback

#: Time that a record is kept after the end of its run.
KEEP = timedelta(days=7)

#: Number of characters of an error message in a record.
MAX_MESSAGE = 500


@attrs.frozen
class RunInfo:
    """Description of a run that starts.

    Attributes:
      total: Number of its steps.
      tree: Its compact tree (``wire.run_tree``).
      template: Name of the template that it was built by; "" if there is none.
      calls: ``on_failure`` or ``on_complete`` -> the job to call, in wire form.
      deadline: Seconds after the start; None for none.
      unique_key: "" for none.
      skipped: Number of its steps that are in fallbacks: they run only if others fail for good.
    """

    total: int
    tree: bytes
    template: str = ""
    tags: tuple[str, ...] = ()
    calls: Mapping[str, Wire] = {}
    deadline: float | None = None
    unique_key: str = ""
    skipped: int = 0

    @property
    def needs_record(self) -> bool:
        """True if the run is not what it should be without a record."""
        return any((self.calls, self.deadline, self.unique_key))

    def fields(self) -> dict[str, Argument]:
        """Fields of its record."""
        found: dict[str, Argument | None] = {
            "tree": self.tree,
            "template": self.template or None,
            "tags": codec.encode(list(self.tags)) if self.tags else None,
            "deadline": self.deadline,
            "unique": self.unique_key or None,
            "skipped": self.skipped or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def lists(self) -> list[str]:
        """Names of the lists, besides that of its state, that it is in."""
        templates = [f"template:{self.template}"] if self.template else []
        return [*templates, *(f"tag:{tag}" for tag in self.tags)]


class Records:
    """Maker of what is written to the records of runs.

    Parameters:
      heartbeat: Of this process, which has its identity.
      enabled: False writes nothing.
      keep: Time that a record is kept after the end of its run.
      arguments: False keeps the arguments of steps out of the records.
    """

    def __init__(self, heartbeat: Heartbeat, *, enabled: bool, keep: timedelta, arguments: bool) -> None:
        self.enabled = enabled
        self.arguments = arguments
        self._heartbeat = heartbeat
        self._keep = max(1, int(keep.total_seconds()))

    def of_run(
        self, run_id: str, info: RunInfo | None, *, ttl: int, completes: bool, calls: Mapping[str, bytes]
    ) -> RunRecord:
        """Make the record of a run that starts.

        Parameters:
          info: None for a run without a record.
          ttl: Seconds that the barriers of the run must live.
          completes: True if the run has no step to run.
          calls: Fields that hold its callbacks.
        """
        if info is None:
            return NO_RUN
        state = "done" if completes else "running"
        fields = {"keep": self._keep, **info.fields(), **calls}
        return RunRecord(
            keys.record(run_id),
            state,
            time.time(),
            ttl + self._keep,
            info.total,
            fields,
            info.lists(),
            unique=info.unique_key,
            deadline=info.deadline,
            needed=info.needs_record,
        )

    def key_of(self, payload: Payload) -> str:
        """Get the key of the record of a job's run; "" for none, and for a callback, which is not a step."""
        if payload.run_id is None or not self.enabled or is_callback(payload.fields):
            return ""
        return keys.record(payload.run_id)

    def of_step(self, payload: Payload, began: float | None) -> StepRecord:
        """Make what is written when a step is done.

        Parameters:
          began: Epoch seconds of its start; None if it is not known.
        """
        key = self.key_of(payload)
        if not key:
            return NO_STEP
        number = payload.step
        # Its first failure leaves 0; Sidekiq's Web UI subtracts one when it retries a dead job.
        mark = "!" if "retry_count" in payload.fields else ""
        if number is None:
            # Such as the job of a delayed empty group; it may be the last one of its run.
            return StepRecord(key, f"!{death_key(None, payload.jid)}" if mark else "")
        if number >= MOST_TIMED:
            return StepRecord(key, f"{mark}{number}")
        end = time.time()
        start = end if began is None else began
        return StepRecord(key, f"{mark}{number} {start:.3f} {end:.3f} {payload.retries} {self._heartbeat.identity}")

    def of_death(self, payload: Payload, fields: Mapping[str, Any], now: float, *, inferred: bool = False) -> Death:
        """Make what is written when a step goes to ``dead``.

        Parameters:
          fields: The payload as it goes to ``dead``.
          now: Epoch seconds.
          inferred: True if the job was found there, and no worker recorded its death.
        """
        key = self.key_of(payload)
        if not key:
            return NO_DEATH
        failure = {
            "jid": payload.jid,
            "class": payload.actor_name,
            "queue": fields.get("queue"),
            "error_class": fields.get("error_class"),
            "error_message": str(fields.get("error_message", ""))[:MAX_MESSAGE],
            "at": now,
        }
        if inferred:
            # At the end, where it is looked for (``run_records.INFERRED``).
            failure["inferred"] = True
        return Death(key, death_key(payload.step, payload.jid), codec.encode(failure))


def checked_tags(tags: Any) -> tuple[str, ...]:
    """Check the tags of a workflow.

    Raises:
      InvalidWorkflow: if they are not a list of names.
    """
    found = tuple(tags)
    if isinstance(tags, str) or not all(isinstance(tag, str) and tag for tag in found):
        raise InvalidWorkflow(f"tags takes a list of names: tags=['nightly'], not {tags!r:.100}.", tags)
    return tuple(dict.fromkeys(found))
