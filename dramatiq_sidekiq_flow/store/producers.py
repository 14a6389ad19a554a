"""Identities of pushes, so that a push that is sent twice is made once.

A push carries the name of its producer and a number that only grows; ``push.lua``
stores the last number of each producer.  One push at a time uses a producer,
and also its repetitions, so there are only as many producers as parallel
pushes, however many threads send.  Processes do not share producers: a forked
child begins without any.
"""

from __future__ import annotations

import os
import secrets
from collections import deque

from . import keys


class Producer:
    """Numbers pushes."""

    __slots__ = ("key", "number")

    def __init__(self) -> None:
        self.key = keys.producer(secrets.token_hex(8))
        self.number = 0

    def next(self) -> int:
        """Get the number of the next push."""
        self.number += 1
        return self.number


class Producers:
    """Pool of the producers of this process that are not in use.

    It has no lock, which a forked child or a green thread could find held: pops
    from a deque and appends to it are atomic.
    """

    def __init__(self) -> None:
        self._free: deque[Producer] = deque()
        self._pid = os.getpid()

    def take(self) -> Producer:
        """Take a producer for one push."""
        pid = os.getpid()
        if pid != self._pid:
            self._free, self._pid = deque(), pid
        try:
            return self._free.pop()
        except IndexError:
            return Producer()

    def give_back(self, producer: Producer) -> None:
        """Return a producer to the pool.

        Not after an error: the push may still arrive, and its number must stay
        the last one of its producer.
        """
        self._free.append(producer)


#: The producers of this process.
producers = Producers()
