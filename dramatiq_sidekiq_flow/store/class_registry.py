"""The registry in Redis: the job classes of each language.

One hash per language, class name -> JSON.  Each process adds its own, so that
several applications make one registry; a hash that is not refreshed expires.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redis.exceptions import ResponseError

from . import keys, scripts
from .connection import LOST, Connection

#: How long a hash lives that is not refreshed, in seconds.
TTL = 3 * 86_400

#: The errors that reading can raise.
UNREADABLE = (*LOST, ResponseError)


def publish(connection: Connection, language: str, entries: Mapping[str, bytes]) -> None:
    """Add entries and extend the hash's TTL, in one step; entries of other processes stay.

    Raises:
      redis.ResponseError: if Redis refuses it (out of memory, another
        type at that key).
    """
    if not entries:
        return
    key = keys.registry(language)
    flat = [part for pair in entries.items() for part in pair]
    # A hash without a TTL would keep classes that are gone.
    connection.call(*scripts.REMEMBER.command((key,), (TTL, *flat)))


def read(connection: Connection, languages: Sequence[str]) -> list[dict[str, bytes] | ResponseError]:
    """All entries of each language, in one round trip; the error of Redis for a language that it refuses to read."""
    found: list[dict[str, bytes] | ResponseError] = []
    for reply in connection.send([("HGETALL", keys.registry(language)) for language in languages]):
        if isinstance(reply, ResponseError):
            found.append(reply)
            continue
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])
        found.append({name.decode("utf-8", "replace"): value for name, value in pairs})
    return found
