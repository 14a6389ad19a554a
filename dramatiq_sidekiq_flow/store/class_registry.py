"""What each language tells the other about its classes.

One hash a language, class name -> JSON.  Each process adds what it has, so
that several applications make one registry; a hash that nobody refreshes
expires.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redis.exceptions import ResponseError

from . import keys, scripts
from .connection import LOST, Connection

#: How long a hash lives that nobody refreshes, in seconds.
TTL = 3 * 86_400

#: What reading can raise.
UNREADABLE = (*LOST, ResponseError)


def publish(connection: Connection, language: str, entries: Mapping[str, bytes]) -> None:
    """Add entries, and let the hash live on, in one step; those of other processes stay.

    Raises:
      redis.ResponseError: where Redis refuses it (out of memory, another
        type at that key).
    """
    if not entries:
        return
    key = keys.registry(language)
    flat = [part for pair in entries.items() for part in pair]
    # A hash that was written and could not expire would tell of classes that are gone.
    connection.call(*scripts.REMEMBER.command((key,), (TTL, *flat)))


def read(connection: Connection, languages: Sequence[str]) -> list[dict[str, bytes] | ResponseError]:
    """All entries of each language, in one round trip; in place of what Redis refuses to read, its error."""
    found: list[dict[str, bytes] | ResponseError] = []
    for reply in connection.send([("HGETALL", keys.registry(language)) for language in languages]):
        if isinstance(reply, ResponseError):
            found.append(reply)
            continue
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2])
        found.append({name.decode("utf-8", "replace"): value for name, value in pairs})
    return found
