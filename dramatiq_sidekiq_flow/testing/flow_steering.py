"""The methods of a FlowTest that do to runs what people, signals and the keeper do."""

from __future__ import annotations

from typing import Any

from ..broker import SidekiqBroker
from ..errors import ConfigurationError, UnknownRun
from ..runs.query import Runs
from ..runs.run_keeper import RunKeeper
from ..store import keys
from ..workflow.engine_lookup import engine_of
from . import waits


class FlowSteering:
    """Steers the runs of a test, without time passing.  :meth:`FlowTest.finish` runs what follows."""

    @property
    def broker(self) -> SidekiqBroker:
        """The broker in use."""
        raise NotImplementedError

    def cancel(self, run_id: str, reason: str = "") -> None:
        """Cancel a run, as ``Runs.cancel``; a step may do that, too."""
        Runs(self.broker).cancel(run_id, reason)

    def pause(self, run_id: str, reason: str = "") -> None:
        """Pause a run, as ``Runs.pause``."""
        Runs(self.broker).pause(run_id, reason)

    def resume(self, run_id: str) -> None:
        """Resume a paused run, as ``Runs.resume``."""
        Runs(self.broker).resume(run_id)

    def retry(self, run_id: str, mode: str = "failed") -> str:
        """Retry a run, as ``Runs.retry``; return the id of the run that goes on."""
        return Runs(self.broker).retry(run_id, mode).id

    def signal(self, name: str, data: Any = None, run_id: str | None = None) -> None:
        """Send a signal to the runs that wait for it, as ``Runs.signal``.

        Parameters:
          run_id: Only this run, which may come to wait for it later.

        Raises:
          ConfigurationError: if no run waits for it.
        """
        waits.signal(self.broker, name, data, run_id)

    def time_out(self, name: str) -> None:
        """Let the time of the steps pass that wait for a signal.

        Raises:
          ConfigurationError: if no run waits for it.
        """
        waits.time_out(self.broker, name)

    def pass_deadline(self, run_id: str) -> None:
        """Let the deadline of a run pass: it is cancelled, unless it has ended.

        Raises:
          ConfigurationError: if it has none, or was done in time.
        """
        connection = self.broker.connection
        if connection.call("ZSCORE", keys.DEADLINES, run_id) is None:
            raise ConfigurationError(f"No deadline of the run {run_id} is ahead: Workflow(..., deadline=...).", run_id)
        connection.call("ZADD", keys.DEADLINES, 1, run_id)
        self._keeper().cancel_overdue()

    def _call_back(self) -> None:
        """Push the callbacks of runs that are due, as the keeper does."""
        if self.broker.connection.call("ZCARD", keys.RESTING):
            self._keeper().resting.look()

    def _state_of(self, run_id: str) -> str:
        try:
            return Runs(self.broker).get(run_id).state
        except (ConfigurationError, UnknownRun):
            return ""

    def _keeper(self) -> RunKeeper:
        return RunKeeper(engine_of(self.broker), is_elsewhere=False)
