"""Marks a job that was fetched ahead as begun, right before its actor runs.

When a worker dies, only jobs that had begun are counted: one of them may have
killed it.  Jobs that start as soon as they are fetched are marked by the
fetch, and those of a burst are not marked one by one: both cost nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger
from dramatiq.middleware import SkipMessage

from ..store.connection import LOST, Caller
from ..store.keys import NOT_BEGUN
from .in_flight import InFlight
from .message import SidekiqMessage

_logger = get_logger(__name__)


def begin(in_flight: Mapping[str, InFlight], connection: Caller, message: Any) -> None:
    """Mark a message as begun.  If Redis cannot be reached, it runs all the same.

    Raises:
      SkipMessage: if the job has left flight here: another worker has it.
    """
    if message.receipt[-1:] != NOT_BEGUN:
        return
    held = in_flight.get(message.queue_name)
    if held is None or held.member != message.member:
        return
    try:
        receipt = held.begin(connection, message.receipt)
    except (ConnectionClosed, *LOST) as e:
        # It counts as not begun; `confirm` finds out whether the server has marked it.
        message.unsure = True
        _logger.debug("Job %s runs, but could not be marked as begun: %s", message.message_id, e)
        return
    if receipt is None:
        message.gone = True
        raise SkipMessage(f"Job {message.message_id} was recovered by another worker before it began.")
    message.receipt = receipt


def confirm(in_flight: Mapping[str, InFlight], connection: Caller, message: SidekiqMessage) -> None:
    """Find the receipt of a message that is ``unsure``: its mark got no reply.

    Raises:
      ConnectionClosed: if Redis cannot be reached; calling again is safe.
    """
    held = in_flight.get(message.queue_name)
    if held is None:
        return
    try:
        receipt = held.begin(connection, message.receipt)
    except LOST as e:
        raise ConnectionClosed(e) from None
    message.receipt = receipt or message.receipt
    message.unsure = False
