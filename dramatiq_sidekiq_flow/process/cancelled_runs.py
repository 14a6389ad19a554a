"""The cancelled and paused runs, as far as this process knows them: their steps do not start."""

from __future__ import annotations

import threading
import time

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..errors import WrongType
from ..store import run_cancel, run_records
from ..store.connection import FAULTS, Connection
from ..wire.payload import Payload
from ..wire.payload_fields import is_callback

#: Seconds after which a step that starts lets this process look for cancelled runs again.
INTERVAL = 0.5

#: The states of a run whose steps do not start.
HALTED = ("cancelled", "paused")

#: Most runs that are remembered.
MOST = 2 * run_cancel.MOST


class CancelledRuns:
    """Knows which runs are cancelled or paused.

    It looks when a step starts, at most once in half a second, so it costs no
    command per step, and an idle process sends nothing.  No step of a run starts
    later than a second after its cancellation or pause.
    """

    def __init__(self, connection: Connection) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.forget()

    def forget(self) -> None:
        """In a forked child: begin anew."""
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._last = ""
        #: Id -> True once a dropped step was logged, the oldest first.
        self._known: dict[str, bool] = {}

    def halts(self, payload: Payload) -> str:
        """Return "cancelled" or "paused" if a step must not start, since its run is; else "".

        The first one of each cancelled run is logged.
        """
        run_id = payload.run_id
        # A step that had failed may come out of `dead` long after: the list has forgotten its run.
        if run_id is None or is_callback(payload.fields):
            return ""
        if not (self._is_listed(run_id) or "retry_count" in payload.fields):
            return ""
        state = self._state(run_id)
        if state == "cancelled" and not self._known.get(run_id):
            self._known[run_id] = True
            self.logger.info(
                "Run %s was cancelled: its step %s, and others that come, do not run.", run_id, payload.jid
            )
        return state

    def knows(self, run_id: str) -> bool:
        """Return True if a run was cancelled, as known at most a second ago."""
        return self._is_listed(run_id) and self._state(run_id) == "cancelled"

    def _is_listed(self, run_id: str) -> bool:
        """Return True if a run was cancelled or paused lately.  A later run may have the same id."""
        if time.monotonic() - self._looked >= INTERVAL:
            self._look()
        return run_id in self._known

    def _state(self, run_id: str) -> str:
        """Return "cancelled" or "paused" if the record of a run says so, else "".

        Without a record, a run of the list counts as cancelled.  If the state cannot be
        read, none does: it may have been resumed, and a step that is dropped is lost.
        """
        try:
            state = run_records.state_of(self.connection, run_id)
        except (ConnectionClosed, WrongType, *FAULTS) as e:
            self.logger.debug("The state of run %s could not be read: %s", run_id, e)
            return ""
        if state is None:
            return "cancelled" if run_id in self._known else ""
        if state not in HALTED:
            self._known.pop(run_id, None)
            return ""
        return state

    def _look(self) -> None:
        with self._lock:
            # Another thread may have looked while this one waited.
            began = time.monotonic()
            if began - self._looked < INTERVAL:
                return
            try:
                found = run_cancel.since(self.connection, self._last)
            except (ConnectionClosed, *FAULTS) as e:
                # A step runs also if Redis cannot be reached.
                self.logger.debug("Cancelled runs could not be read: %s", e)
                self._looked = time.monotonic()
                return
            for run_id, score in found:
                self._known.setdefault(run_id, False)
                self._last = score
            while len(self._known) > MOST:
                del self._known[next(iter(self._known))]
            self._looked = began
