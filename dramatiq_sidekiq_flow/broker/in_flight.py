"""What this process holds, beside what Redis says that it has in flight.

A fetch whose reply was lost for good, or that was delivered late, leaves jobs
in flight that no thread knows.  With each beat the two are compared; what is
unknown twice in a row goes back to its queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dramatiq.logging import get_logger

from ..store import keys, queues, workers

if TYPE_CHECKING:
    from .broker import SidekiqBroker


class InFlight:
    """Compares the windows of a process with its in-flight hashes."""

    def __init__(self, broker: SidekiqBroker) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        #: Member -> receipts that no thread knew at the last beat.
        self._unknown: dict[str, set[bytes]] = {}

    def held(self, members: Iterable[str]) -> dict[str, int | None]:
        """How many jobs each member holds; None where it has no window here."""
        windows = {window.member: window for window in list(self.broker.windows.values())}
        waiting = Counter(member for member, _ in self._settling())
        return {member: windows[member].held + waiting[member] if member in windows else None for member in members}

    def _settling(self) -> list[tuple[str, str]]:
        """Member and receipt of the jobs that no window holds, and that are still to leave flight."""
        return [*self.broker.commit.waiting(), *list(self.broker.set_aside)]

    def reconcile(self, members: Iterable[str]) -> None:
        """Put back what no thread has known for two beats, of members that have more in flight than they hold."""
        before, self._unknown = self._unknown, {}
        windows = {window.member: window for window in list(self.broker.windows.values())}
        for member in members:
            window = windows.get(member)
            if window is None:
                continue
            receipts = workers.receipts(self.broker.connection, member)
            waiting = [receipt for of, receipt in self._settling() if of == member]
            unknown = window.unknown(receipts, waiting)
            lost = unknown & before.get(member, set())
            self._unknown[member] = unknown - lost
            if lost:
                ordered = sorted(lost, key=keys.fetch_order)
                moved = queues.requeue(self.broker.connection, member, window.queue_name, ordered)
                self.logger.warning(
                    "%d jobs of queue %r were in flight, but no thread of this process had them; they are back in "
                    "their queue.",
                    moved,
                    window.queue_name,
                )


__all__ = ["InFlight"]
