"""Worker processes as Sidekiq's Web UI shows them (``launcher.rb``, ``api.rb``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import keys
from .connection import Connection

#: How often somebody looks for processes that are gone, in seconds.
CLEANUP_INTERVAL = 60


def beat(
    connection: Connection, identity: str, fields: Mapping[str, Any], work: Mapping[str, bytes], *, ttl: float
) -> list[str]:
    """Write a process's record, and what its threads work on.

    Parameters:
      fields: ``info``, ``busy``, ``beat``, ``quiet``, ``rss``, ``rtt_us``, ``concurrency``.
      ttl: Seconds that the record lives without another beat.

    Returns:
      Signals that were sent to the process, the first one first.  They stay
      until :func:`heard` takes them away, since a lost reply would lose them.
    """
    name, ms = keys.work(identity), max(1, int(ttl * 1000))
    at_work = [part for pair in work.items() for part in pair]
    replies = connection.send(
        [
            ("MULTI",),
            ("UNLINK", name),
            *([("HSET", name, *at_work), ("PEXPIRE", name, ms)] if at_work else []),
            ("SADD", keys.PROCESSES, identity),
            ("HSET", identity, *(part for pair in fields.items() for part in pair)),
            ("PEXPIRE", identity, ms),
            ("LRANGE", keys.signals(identity), 0, -1),
            ("EXEC",),
        ]
    )
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    signals: list[bytes] = replies[-1][-1]
    return [signal.decode("utf-8", "replace") for signal in reversed(signals)]


def heard(connection: Connection, identity: str, signals: Sequence[str]) -> None:
    """Take signals away."""
    for signal in signals:
        connection.call("LREM", keys.signals(identity), -1, signal)


def gone(connection: Connection, identity: str) -> None:
    """A process has ended: take its record away."""
    connection.send(
        [
            ("SREM", keys.PROCESSES, identity),
            ("UNLINK", identity, keys.work(identity), keys.signals(identity)),
        ]
    )


def infos(connection: Connection) -> dict[str, bytes | None]:
    """Identity -> JSON of each process; None where its record has expired."""
    found = [identity.decode() for identity in connection.call("SMEMBERS", keys.PROCESSES)]
    replies = connection.send([("HGET", identity, "info") for identity in found]) if found else []
    return {identity: reply for identity, reply in zip(found, replies) if not isinstance(reply, Exception)}


def fleet(connection: Connection) -> tuple[dict[str, bytes | None], list[str]]:
    """Identity -> JSON of each process (None where it has expired), and the members of the worker registry."""
    identities, members = connection.send([("SMEMBERS", keys.PROCESSES), ("ZRANGE", keys.WORKERS, 0, -1)])
    known = [] if isinstance(identities, Exception) else list(identities)
    beating = [] if isinstance(members, Exception) else members
    records = connection.send([("HGET", identity, "info") for identity in known]) if known else []
    found = {
        identity.decode("utf-8", "replace"): None if isinstance(record, Exception) else record
        for identity, record in zip(known, records)
    }
    return found, [member.decode("utf-8", "replace") for member in beating]


def clean_up(connection: Connection) -> None:
    """Strike off processes whose record has expired; once a minute one process does (``ProcessSet#cleanup``)."""
    if connection.call("SET", keys.PROCESS_CLEANUP, 1, "NX", "EX", CLEANUP_INTERVAL) is None:
        return
    expired = [identity for identity, info in infos(connection).items() if info is None]
    if expired:
        connection.call("SREM", keys.PROCESSES, *expired)


def cancelled(connection: Connection, jid: str) -> bool:
    """Whether a person cancelled a job (``job/iterable.rb``, ``cancel!``)."""
    return connection.call("HGET", keys.iteration(jid), "cancelled") is not None


def cancel(connection: Connection, jid: str, *, now: float, ttl: int = 30 * 86_400) -> None:
    """Cancel a job, as ``cancel!`` of an iterable job does.

    Parameters:
      now: Epoch seconds.
      ttl: Seconds that the wish is kept.
    """
    key = keys.iteration(jid)
    connection.send([("HSETNX", key, "cancelled", int(now)), ("EXPIRE", key, ttl)])
