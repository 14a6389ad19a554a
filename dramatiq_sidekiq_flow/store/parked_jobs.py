"""Parked jobs of paused runs, read from their lists (``_parked.lua``)."""

from __future__ import annotations

from collections.abc import Iterator

from . import keys
from .connection import Connection

#: Entries that are read in one call.
AT_ONCE = 50


def claim_upkeep(connection: Connection, seconds: int) -> bool:
    """Claim the upkeep of all paused runs for this process; return False if another one did in the last seconds."""
    return connection.call("SET", keys.UPKEEP_PAUSED, 1, "NX", "EX", seconds) is not None


def paused_runs(connection: Connection) -> list[str]:
    """List the ids of the paused runs; those of some that are not may be among them."""
    return keys.readable(connection.call("ZRANGE", keys.runs_in("paused"), 0, -1))


def payloads(connection: Connection, run_id: str, most: int) -> Iterator[bytes]:
    """Yield the parked jobs of a run, those of its parked fan-outs, too."""
    for entry in _elements(connection, keys.parked(run_id), most):
        name, _, payload = entry[1:].partition(b"\0")
        if entry[:1] == b"f":
            yield from _of_fanout(connection, keys.fanout(name.decode("utf-8", "replace")), most)
        else:
            yield payload


def _of_fanout(connection: Connection, key: str, most: int) -> Iterator[bytes]:
    for element in _elements(connection, key, most):
        if element[:1] == b"s":
            yield element.partition(b" ")[2]
        elif element[:1] == b"{":
            yield element


def _elements(connection: Connection, key: str, most: int) -> Iterator[bytes]:
    """Yield the first elements of a list."""
    for first in range(0, most, AT_ONCE):
        found = connection.call("LRANGE", key, first, min(first + AT_ONCE, most) - 1)
        yield from found
        if len(found) < AT_ONCE:
            return
