"""Worker processes as Sidekiq's Web UI shows them (``launcher.rb``, ``api.rb``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from . import keys, scripts
from .connection import Connection

#: Seconds between two looks for processes that are gone, by any process.
CLEANUP_INTERVAL = 60


def beat(
    connection: Connection, identity: str, fields: Mapping[str, Any], work: Mapping[str, bytes], *, ttl: float
) -> list[str]:
    """Write a process's record, and what its threads work on.  Once a minute, remove those that are gone.

    Parameters:
      fields: ``info``, ``busy``, ``beat``, ``quiet``, ``rss``, ``rtt_us``, ``concurrency``, ``actors``.
      ttl: Seconds that the record lives without another beat.

    Returns:
      Signals that were sent to the process, the first one first.  They stay
      until :func:`acknowledge_signals` takes them away, since a lost reply would lose them.
    """
    at_work: list[Any] = list(chain.from_iterable(work.items()))
    record: list[Any] = list(chain.from_iterable(fields.items()))
    signals, look = connection.call(
        *scripts.PROCESS.command(
            (keys.PROCESSES, identity, keys.work(identity), keys.signals(identity), keys.PROCESS_CLEANUP),
            (max(1, int(ttl * 1000)), CLEANUP_INTERVAL, len(work), *at_work, *record),
        )
    )
    if look:
        remove_expired(connection)
    return [signal.decode("utf-8", "replace") for signal in reversed(signals)]


def acknowledge_signals(connection: Connection, identity: str, signals: Sequence[str]) -> None:
    """Remove signals that were handled."""
    for signal in signals:
        connection.call("LREM", keys.signals(identity), -1, signal)


def remove(connection: Connection, identity: str) -> None:
    """Remove the record of a process that has ended."""
    connection.send(
        [
            ("SREM", keys.PROCESSES, identity),
            ("UNLINK", identity, keys.work(identity), keys.signals(identity)),
        ]
    )


def infos(connection: Connection) -> dict[str, bytes | None]:
    """Identity -> JSON of each process; None where its record has expired."""
    found = keys.readable(connection.call("SMEMBERS", keys.PROCESSES))
    replies = connection.send([("HGET", identity, "info") for identity in found]) if found else []
    return {identity: reply for identity, reply in zip(found, replies) if not isinstance(reply, Exception)}


def beats(connection: Connection, identities: Sequence[str]) -> dict[str, bytes | None]:
    """Identity -> time of the last beat of each process, as it wrote it; None where its record has expired."""
    replies = connection.send([("HGET", identity, "beat") for identity in identities]) if identities else []
    return {identity: _unless_error(reply) for identity, reply in zip(identities, replies)}


def fleet(connection: Connection) -> tuple[dict[str, bytes | None], list[str]]:
    """Identity -> JSON of each process (None where it has expired), and the members of the worker registry."""
    identities, members = connection.send([("SMEMBERS", keys.PROCESSES), ("ZRANGE", keys.WORKERS, 0, -1)])
    known = list(_unless_error(identities) or ())
    records = connection.send([("HGET", identity, "info") for identity in known]) if known else []
    names = [identity.decode("utf-8", "replace") for identity in known]
    beating = [member.decode("utf-8", "replace") for member in _unless_error(members) or []]
    return dict(zip(names, map(_unless_error, records))), beating


def _unless_error(reply: Any) -> Any:
    """A reply; None instead of an error."""
    return None if isinstance(reply, Exception) else reply


def remove_expired(connection: Connection) -> None:
    """Remove processes whose record has expired; once a minute one process does (``ProcessSet#cleanup``)."""
    expired = [identity for identity, info in infos(connection).items() if info is None]
    if expired:
        connection.call("SREM", keys.PROCESSES, *expired)


def cancelled(connection: Connection, jid: str) -> bool:
    """Return True if an operator cancelled a job (``job/iterable.rb``, ``cancel!``)."""
    return connection.call("HGET", keys.iteration(jid), "cancelled") is not None


def cancel(connection: Connection, jid: str, *, now: float, ttl: int = 30 * 86_400) -> None:
    """Cancel a job, as ``cancel!`` of an iterable job does.

    Parameters:
      now: Epoch seconds.
      ttl: Seconds that the cancellation is kept.
    """
    key = keys.iteration(jid)
    connection.send([("HSETNX", key, "cancelled", int(now)), ("EXPIRE", key, ttl)])
