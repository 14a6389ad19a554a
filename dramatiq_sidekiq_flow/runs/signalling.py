"""Signals to runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InvalidFilter, InvalidWorkflow, UnknownRun, shortened
from ..store import run_signals
from ..store.connection import Connection
from ..wire import codec
from ..wire.wait_for import is_signal_name
from . import run_index
from .run_index import Filter


class Signals:
    """Sends signals to runs."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, run_id: str, name: str, data: Any) -> bool:
        """Send a signal to one run; return False if the run is done or cancelled.

        Raises:
          UnknownRun: if there is no such run.
          InvalidWorkflow: if no signal can have this name.
          InvalidArguments: if JSON cannot carry the data exactly.
        """
        sent = run_signals.signal(self.connection, run_id, name, _checked(name, data))
        if sent == "unknown":
            raise UnknownRun(
                f"There is no run {shortened(run_id)}, so it got no signal: no workflow has this id, or what Redis "
                "knows of it has expired.",
                run_id,
            )
        return sent == "sent"

    def send_all(self, wanted: Filter, name: str, data: Any) -> Sequence[str]:
        """Send a signal to all runs of a filter that are not at their end; return their ids.

        Raises:
          InvalidFilter: if the filter is empty.
          InvalidWorkflow, InvalidArguments: as :meth:`send`.
        """
        if not wanted.indexes:
            raise InvalidFilter("signal takes the id of a run, or a filter: template=, tag= or state=.", name)
        encoded = _checked(name, data)
        heads = run_index.all_of(self.connection, wanted)
        return [head.id for head in heads if self._is_sent(head.id, name, encoded)]

    def _is_sent(self, run_id: str, name: str, encoded: bytes) -> bool:
        return run_signals.signal(self.connection, run_id, name, encoded) == "sent"


def _checked(name: str, data: Any) -> bytes:
    if not is_signal_name(name):
        raise InvalidWorkflow(f"No signal has the name {shortened(name)}.", name)
    codec.check(data, "data")
    return codec.encode(data)
