"""Repetitions of whole runs, as new runs."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Sequence

from ..errors import CannotRetry, FlowError, shortened
from ..store import run_records, run_repeats
from ..store.run_records import RecordHead
from ..workflow.engine import Engine
from ..workflow.run_start import load_start
from ..workflow.start import start
from .run_reader import RunReader
from .unknown_run import unknown_run

#: The recorded states of a run that has not ended.
ALIVE = ("running", "failed", "paused")


class Repetition:
    """Starts runs anew from what they were started with."""

    def __init__(self, engine: Engine, reader: RunReader) -> None:
        self.engine = engine
        self.connection = engine.broker.connection
        self.reader = reader

    def repeat(self, run_id: str) -> str:
        """Start a run anew, unless a run that repeats it lives; return the id of that run.

        Raises:
          UnknownRun: if it has no record.
          CannotRetry: if what it was started with is not kept, if it is at work, or if its unique key is taken.
        """
        head = run_records.read_heads(self.connection, [run_id])[0]
        if head is None:
            raise unknown_run(run_id, "so it cannot be retried")
        if head.repeated and run_records.state_of(self.connection, head.repeated) in ALIVE:
            return head.repeated
        return self._start(head)

    def check(self, run_ids: Sequence[str]) -> None:
        """Raise CannotRetry if one of these runs cannot be repeated."""
        for run_id in run_ids:
            self._kept(run_id)

    def _kept(self, run_id: str) -> bytes:
        raw = run_repeats.start_of(self.connection, run_id)
        if raw is None:
            raise CannotRetry(
                f"The run {shortened(run_id)} does not keep what it was started with, so it cannot start anew: start "
                "its workflow, or its template, again. Workflow(..., repeatable=True) keeps it for the next time.",
                run_id,
            )
        return raw

    def _start(self, head: RecordHead) -> str:
        raw = self._kept(head.id)
        if not self.reader.get(head.id).at_rest:
            raise CannotRetry(
                f"The run {shortened(head.id)} is at work, or paused: wait for its end, or cancel it, before it starts "
                "anew.",
                head.id,
            )
        try:
            kept = load_start(raw, self.engine)
        except (FlowError, KeyError, TypeError, zlib.error) as e:
            raise CannotRetry(f"What the run {shortened(head.id)} was started with cannot be read: {e}", head.id) from e
        # The same for calls at the same time, so that one of them starts it.
        again = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{head.id}:again:{head.repeated}"))
        seed = kept.seed if self.engine.memory is not None else None
        started = start(self.engine, again, kept.wire, seed, kept.info)
        if started.run_id != again:
            raise CannotRetry(
                f"The run {shortened(started.run_id)} has the unique key {kept.info.unique_key!r}, and lives: cancel "
                "it, or wait for its end.",
                head.id,
            )
        run_repeats.note_repeat(head.id, again).run(self.connection)
        if started.unconfirmed is not None:
            raise started.unconfirmed
        return again
