"""Marks a job that was fetched ahead as begun, right before its actor runs.

When a worker dies, only jobs that had begun are counted: one of them may be
what killed it.  Jobs that start as soon as they are fetched are marked by the
fetch, and those of a burst are not marked one by one: both cost nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import SkipMessage

from ..store.connection import LOST
from ..store.keys import NOT_BEGUN

if TYPE_CHECKING:
    from .broker import SidekiqBroker
    from .message import SidekiqMessage


def begin(broker: SidekiqBroker, message: Any) -> None:
    """Mark a message as begun.  Where Redis cannot be reached, it runs all the same.

    Raises:
      SkipMessage: if the job is no longer in flight here: another worker has it.
    """
    if message.receipt[-1:] != NOT_BEGUN:
        return
    window = broker.windows.get(message.queue_name)
    if window is None or window.member != message.member:
        return
    try:
        receipt = window.begin(broker.connection, message.receipt)
    except LOST as e:
        # It counts as not begun; whether the server has heard of it is looked up before it leaves.
        message.unsure = True
        broker.logger.debug("Job %s begins unmarked: %s", message.message_id, e)
        return
    if receipt is None:
        message.gone = True
        raise SkipMessage(f"Job {message.message_id} was recovered by another worker before it began.")
    message.receipt = receipt


def confirm(broker: SidekiqBroker, message: SidekiqMessage) -> None:
    """Find out under which receipt a message is in flight, where its mark got no reply.

    Raises:
      ConnectionClosed: when Redis cannot be reached; calling again is safe.
    """
    if not message.unsure:
        return
    window = broker.windows.get(message.queue_name)
    if window is None:
        return
    try:
        receipt = window.begin(broker.connection, message.receipt)
    except LOST as e:
        raise ConnectionClosed(e) from None
    message.receipt = receipt or message.receipt
    message.unsure = False


__all__ = ["begin", "confirm"]
