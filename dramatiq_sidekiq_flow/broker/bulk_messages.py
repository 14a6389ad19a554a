"""Messages whose payloads have a frame in common: of one actor, one queue, and with equal options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import dramatiq

from ..errors import FlowError
from ..wire import codec
from ..wire.payload_frame import FramedJobs, PayloadFrame

Message = dramatiq.Message[Any]

#: Messages of one queue, and their payloads, in the same order.
Jobs = tuple[Sequence[Message], Sequence[bytes]]

#: Actor, queue, and the options as JSON.
_Key = tuple[str, str, bytes]


@attrs.frozen
class _Alike:
    """Messages that have a frame in common.

    Attributes:
      queue: Their queue; "" for ``schedule``.
    """

    queue: str
    jobs: FramedJobs


@attrs.frozen
class CheckedMessages:
    """Messages that are checked and encoded, all but the time of their push.

    Attributes:
      order: For each message, the number of its part.
    """

    messages: Sequence[Message]
    parts: Sequence[_Alike]
    order: Sequence[int]

    def jobs(self, now: float) -> dict[str, Jobs]:
        """Make the payloads of each queue, in the order of the messages.

        Parameters:
          now: Epoch seconds.
        """
        if len(self.parts) == 1:
            (part,) = self.parts
            return {part.queue: (self.messages, part.jobs.payloads(now))}
        jobs: dict[str, tuple[list[Message], list[bytes]]] = {}
        made = [iter(part.jobs.payloads(now)) for part in self.parts]
        for message, number in zip(self.messages, self.order):
            messages, payloads = jobs.setdefault(self.parts[number].queue, ([], []))
            messages.append(message)
            payloads.append(next(made[number]))
        return {queue: (messages, payloads) for queue, (messages, payloads) in jobs.items()}


def checked_messages(
    messages: Sequence[Message], fields_of: Callable[[Message], dict[str, Any]], *, queued: bool
) -> CheckedMessages | None:
    """Check and encode messages.

    Parameters:
      fields_of: Message -> its payload; raises if it is invalid.
      queued: Whether they go to their queues, and not to ``schedule``.

    Returns:
      None if one of them is invalid, or is not one of Dramatiq's own class.
    """
    keys = _keys(messages)
    if keys is None:
        return None
    numbers: dict[_Key, int] = {}
    order = [numbers.setdefault(key, len(numbers)) for key in keys]
    members: list[list[Message]] = [[] for _ in numbers]
    for message, number in zip(messages, order):
        members[number].append(message)
    try:
        parts = [_alike(alike, fields_of, queued) for alike in members]
    except FlowError:
        return None
    return CheckedMessages(messages, parts, order)


def _keys(messages: Iterable[Message]) -> list[_Key] | None:
    """What the payloads of messages with the same key have in common; None if one has no key."""
    keys: list[_Key] = []
    for message in messages:
        if type(message) is not dramatiq.Message or message.kwargs or type(message.message_id) is not str:
            return None
        options = b""
        if message.options:
            try:
                codec.check(message.options, "options")
                options = codec.encode(message.options)
            except FlowError:
                return None
        keys.append((message.actor_name, message.queue_name, options))
    return keys


def _alike(messages: Sequence[Message], fields_of: Callable[[Message], dict[str, Any]], queued: bool) -> _Alike:
    """Check and encode messages with the same key.

    Raises:
      InvalidArguments, InvalidOptions: if one is invalid.
    """
    frame = PayloadFrame.of(fields_of(messages[0]), queued=queued)
    arrays = [message.args for message in messages]
    codec.check_arrays(arrays)
    jobs = frame.jobs(arrays, [message.message_id for message in messages], messages[0].actor_name)
    return _Alike(messages[0].queue_name if queued else "", jobs)
