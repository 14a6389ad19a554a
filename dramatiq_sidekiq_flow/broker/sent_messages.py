"""The messages of many jobs that were sent together."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

import dramatiq

from ..store.parts import PART_ELEMENTS
from ..wire.jids import BYTES, jids
from .message import mark_sent

R = TypeVar("R")

#: Messages whose ids and times are made together.
BLOCK = PART_ELEMENTS

#: The item of a message whose item was not kept.
NOTHING: Any = object()


class MessageIds(Sequence[str]):
    """The ids of the messages, in their order.

    They are computed from 32 random bytes when they are asked for, so that
    those of millions take no memory.
    """

    def __init__(self) -> None:
        self._seed = os.urandom(32)
        self._count = 0
        self._read: tuple[int, list[bytes]] = (-1, [])

    def block(self, number: int, count: int = BLOCK) -> list[bytes]:
        """Make the first ids of a block."""
        random = hashlib.shake_128(self._seed + number.to_bytes(8, "big"))
        return jids(random.digest(BYTES * count))

    def __len__(self) -> int:
        return self._count

    def add(self, count: int) -> None:
        """Count further messages as sent."""
        self._count += count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        places = range(self._count)[index]
        return self._at(places) if isinstance(places, int) else [self._at(place) for place in places]

    def _at(self, place: int) -> str:
        number, offset = divmod(place, BLOCK)
        read = self._read
        if read[0] != number:
            read = self._read = (number, self.block(number))
        return read[1][offset].decode()


class SentMessages(Sequence["dramatiq.Message[R]"]):
    """The messages that :func:`send_many` has sent, in the order of its items.

    Each message is made when it is asked for.  A message of a list or tuple has
    its arguments.  Of another iterable the items are not kept, so its messages
    have none: use them for their ids and results.

    Parameters:
      make: Makes the message of an item, or of :data:`NOTHING`, from its id and its time.
      items: The items; None if they are not kept.

    Attributes:
      message_ids: The ids of the messages.
    """

    def __init__(self, make: Callable[[Any, str, float], dramatiq.Message[R]], items: Sequence[Any] | None) -> None:
        self.message_ids = MessageIds()
        self._make = make
        self._items = items
        self._times = array("d")

    def allot(self, count: int, now: float) -> list[bytes]:
        """Make the ids of the next block of messages.

        Parameters:
          count: Their number; fewer than :data:`BLOCK` only for the last block.
          now: Epoch seconds.
        """
        self._times.append(now)
        return self.message_ids.block(len(self._times) - 1, count)

    def __len__(self) -> int:
        return len(self.message_ids)

    @overload
    def __getitem__(self, index: int) -> dramatiq.Message[R]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[dramatiq.Message[R]]: ...
    def __getitem__(self, index: int | slice) -> dramatiq.Message[R] | Sequence[dramatiq.Message[R]]:
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else [self._at(place) for place in places]

    def __iter__(self) -> Iterator[dramatiq.Message[R]]:
        return map(self._at, range(len(self)))

    def _at(self, place: int) -> dramatiq.Message[R]:
        item = NOTHING if self._items is None else self._items[place]
        message = self._make(item, self.message_ids[place], self._times[place // BLOCK])
        mark_sent(message)
        return message

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)}>"
