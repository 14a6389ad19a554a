"""Acknowledgements that are handed over: the thread that ran the job goes on, and any thread sends them.

One command takes all finished jobs without a workflow out of flight, and one script
call advances all steps of a group.  The last step of a group needs a plan, which
such a call does not have: the step is left, and acknowledged by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import attrs
from dramatiq.logging import get_logger

from ..store import group_steps, queues
from ..store.connection import LOST
from ..store.group_steps import GroupStep
from ..store.outcomes import Operation


class Acknowledgement:
    """The acknowledgement of a finished job.

    Attributes:
      step: The step, if the job is one of a group; else None.
      settle: Function that acknowledges the step by itself.
    """

    __slots__ = ("member", "receipt", "settle", "step")

    def __init__(
        self, member: str, receipt: str, step: GroupStep | None = None, settle: Callable[[], None] | None = None
    ) -> None:
        self.member = member
        self.receipt = receipt
        self.step = step
        self.settle = settle

    @property
    def together(self) -> Hashable:
        """Key of the acknowledgements that one command sends."""
        return self.member if self.step is None else self.step.group


@attrs.frozen
class Batch:
    """Acknowledgements that one command sends.

    Attributes:
      operation: Its value is the indexes of the steps that are left.
    """

    operation: Operation[list[int]]
    acknowledgements: list[Acknowledgement]


class HandedOver:
    """The acknowledgements of one process that are not settled yet.

    Each is at any time in at least one of the collections, since ``waiting`` is
    called by other threads.
    """

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self.queued: deque[Acknowledgement] = deque()
        #: Those of ``queued`` that are being sent.
        self._sending: deque[Acknowledgement] = deque()
        #: Steps to acknowledge by themselves.
        self.left: deque[Acknowledgement] = deque()

    def waiting(self) -> list[tuple[str, str]]:
        """Member and receipt of each."""
        found = [*list(self._sending), *list(self.queued), *list(self.left)]
        return [(each.member, each.receipt) for each in found]

    def take(self) -> list[Batch]:
        """Move the queued ones to those being sent, and make their commands."""
        sending = self._sending
        if not self.queued and not sending:
            return []
        while self.queued:
            sending.append(self.queued[0])
            self.queued.popleft()
        batches: dict[Hashable, list[Acknowledgement]] = {}
        for each in sending:
            batches.setdefault(each.together, []).append(each)
        return [Batch(_operation(batch), batch) for batch in batches.values()]

    def put_back(self) -> None:
        """Queue those being sent again: they were not sent, or nothing is known of them."""
        self.queued.extendleft(reversed(self._sending))
        self._sending.clear()

    def settle(self, batches: Iterable[Batch], replies: Iterable[Any]) -> BaseException | None:
        """Read the replies of what was sent.

        Returns:
          The error, if the server refused a command for now; its acknowledgements
          are queued again.
        """
        refused: BaseException | None = None
        for batch, reply in zip(batches, replies):
            if isinstance(reply, LOST):
                refused = reply
                self.queued.extend(batch.acknowledgements)
            else:
                self.left.extend(self._left(batch, reply))
        self._sending.clear()
        return refused

    def _left(self, batch: Batch, reply: Any) -> list[Acknowledgement]:
        """The steps that must be acknowledged by themselves; all if the call was refused, to get an error each."""
        acknowledgements = batch.acknowledgements
        try:
            if isinstance(reply, Exception):
                raise reply
            return [acknowledgements[index] for index in batch.operation.read(reply)]
        except Exception as e:
            if acknowledgements[0].step is not None:
                return acknowledgements
            self.logger.error(
                "%d finished jobs of %s stay in flight, and run again when this process is gone: %s",
                len(acknowledgements),
                acknowledgements[0].member,
                e,
            )
            return []


def _operation(batch: list[Acknowledgement]) -> Operation[list[int]]:
    member = batch[0].member
    steps = [each.step for each in batch if each.step is not None]
    if steps:
        return group_steps.advance(member, steps)
    command = queues.done(member, [each.receipt for each in batch])
    return Operation(command, lambda reply: [])
