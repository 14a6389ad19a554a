"""Steps that wait for a signal, in a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..broker import SidekiqBroker
from ..errors import ConfigurationError
from ..runs.query import Runs
from ..store import keys, sets
from ..wire import codec
from ..wire.payload import Payload
from ..wire.wait_for import UNTIL_KEY, waiting_for


def signal(broker: SidekiqBroker, name: str, data: Any, run_id: str | None) -> None:
    """Send a signal to a run; without its id, to the runs that wait for it.

    Raises:
      ConfigurationError: if no run waits for it.
    """
    runs = {run_id} if run_id else {run for run, _ in _waiting(broker, name)}
    for each in runs:
        Runs(broker).signal(each, name, data)


def time_out(broker: SidekiqBroker, name: str) -> None:
    """Push the steps that wait for a signal as if their time was over.

    Raises:
      ConfigurationError: if no run waits for it.
    """
    connection = broker.connection
    for _, member in _waiting(broker, name):
        fields = {**codec.decode(member), UNTIL_KEY: 1.0}
        connection.call("ZREM", keys.SCHEDULE, member)
        connection.call("LPUSH", keys.queue(fields["queue"]), codec.encode(fields))


def _waiting(broker: SidekiqBroker, name: str) -> list[tuple[str, bytes]]:
    """List the steps that wait for a signal: run id and payload.

    Raises:
      ConfigurationError: if there are none.
    """
    found = list(_jobs(broker, name))
    if not found:
        raise ConfigurationError(f"No run waits for the signal {name!r}.", name)
    return found


def _jobs(broker: SidekiqBroker, name: str) -> Iterator[tuple[str, bytes]]:
    for member, _ in sets.members(broker.connection, keys.SCHEDULE):
        if waiting_for(member) == name:
            yield Payload.decode(member).run_id or "", member
