"""Search for runs by the beginning of their ids."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import keys
from .connection import Connection
from .run_lists import Position
from .run_records import STATES, check_type
from .sets import scored

#: Members of an index that the server looks at in one call: about a millisecond.
LOOKED_AT = 5_000

_SPECIAL = re.compile(r"([*?\[\]\\])")


def beginning_with(connection: Connection, prefix: str) -> Iterator[Position]:
    """Yield the runs whose ids begin so, in no order; one that changes its state meanwhile may come twice.

    Raises:
      WrongType: if an index holds another type.
    """
    pattern = _SPECIAL.sub(r"\\\1", prefix) + "*"
    for index in map(keys.runs_in, STATES):
        cursor: bytes | int = 0
        while True:
            reply = connection.send([("ZSCAN", index, cursor, "MATCH", pattern, "COUNT", LOOKED_AT)])[0]
            check_type(index, reply)
            cursor, found = reply
            for name, score in scored(found):
                yield Position(score, name.decode("utf-8", "surrogateescape"))
            if not int(cursor):
                break
