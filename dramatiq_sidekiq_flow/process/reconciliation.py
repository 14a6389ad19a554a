"""Compares the jobs that a process holds with those that Redis has in flight for it.

A fetch whose reply was lost for good, or that was delivered late, leaves jobs
in flight that no thread knows.  With each beat the two are compared; a job that
is unknown twice in a row goes back to its queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from dramatiq.logging import get_logger

from ..store import keys, queues, workers
from ..store.connection import Connection


class Held(Protocol):
    """The jobs of one queue that this process holds; see ``broker.in_flight``."""

    queue_name: str
    member: str

    @property
    def held(self) -> int: ...
    def unknown(self, receipts: Iterable[bytes], waiting: Iterable[str]) -> set[bytes]: ...


class Reconciliation:
    """Puts back jobs in flight that no thread of this process knows.

    Parameters:
      in_flight: Queue -> the jobs of it that this process holds.
      leaving: Gives member and receipt of jobs that are not held any longer, and
        have not left flight yet.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        in_flight: Mapping[str, Held],
        leaving: Callable[[], list[tuple[str, str]]],
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.in_flight = in_flight
        self.leaving = leaving
        #: Member -> receipts that no thread knew at the last beat.
        self._unknown: dict[str, set[bytes]] = {}

    def held(self, members: Iterable[str]) -> dict[str, int | None]:
        """Count the jobs that each member holds; None for members of other consumers."""
        by_member = self._by_member()
        leaving = Counter(member for member, _ in self.leaving())
        counts: dict[str, int | None] = {}
        for member in members:
            found = by_member.get(member)
            counts[member] = None if found is None else found.held + leaving[member]
        return counts

    def _by_member(self) -> dict[str, Held]:
        return {held.member: held for held in list(self.in_flight.values())}

    def reconcile(self, members: Iterable[str]) -> None:
        """Put back jobs that were unknown to all threads at this beat and the one before.

        Parameters:
          members: Members that have more jobs in flight than they hold.
        """
        before, self._unknown = self._unknown, {}
        by_member = self._by_member()
        for member in members:
            held = by_member.get(member)
            if held is None:
                continue
            unknown = self._unknown_of(held)
            lost = unknown & before.get(member, set())
            self._unknown[member] = unknown - lost
            if lost:
                self._put_back(held, lost)

    def _unknown_of(self, held: Held) -> set[bytes]:
        """Read the receipts in flight for a member that are unknown to all threads of this process."""
        receipts = workers.receipts(self.connection, held.member)
        leaving = [receipt for member, receipt in self.leaving() if member == held.member]
        return held.unknown(receipts, leaving)

    def _put_back(self, held: Held, receipts: set[bytes]) -> None:
        ordered = sorted(receipts, key=keys.fetch_order)
        moved = queues.requeue(self.connection, held.member, held.queue_name, ordered)
        self.logger.warning(
            "%d jobs of queue %r were in flight, but no thread of this process had them; they are back in their queue.",
            moved,
            held.queue_name,
        )
