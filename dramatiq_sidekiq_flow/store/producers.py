"""Identities of pushes, so that a push that was sent twice is made once.

A push carries the name of its producer and a number that only grows; ``push.lua``
keeps the last number of each producer.  A producer is lent to one push at a time,
together with its repetitions, so there are as many as pushes at the same time,
however many threads ever sent.  No two processes share one: a forked child begins
with none.
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
        """The number of one more push."""
        self.number += 1
        return self.number


class Producers:
    """The producers of this process that no push uses now.

    Without a lock, which a forked child or a green thread could find held: taking
    from a deque and adding to it are atomic.
    """

    def __init__(self) -> None:
        self._free: deque[Producer] = deque()
        self._pid = os.getpid()

    def take(self) -> Producer:
        """A producer for one push."""
        pid = os.getpid()
        if pid != self._pid:
            self._free, self._pid = deque(), pid
        try:
            return self._free.pop()
        except IndexError:
            return Producer()

    def give_back(self, producer: Producer) -> None:
        """Let the next push use a producer.

        Not after an error: a push whose fate is not known may still arrive, and
        its number must stay the last one of its producer.
        """
        self._free.append(producer)


#: Those of this process.
producers = Producers()
