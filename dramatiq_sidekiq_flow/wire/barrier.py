"""Barriers that a plan creates."""

from __future__ import annotations

import attrs


@attrs.frozen
class NewBarrier:
    """A barrier to create: ``SETEX id ttl value`` and ``SETEX id_ran ttl ran``.

    Attributes:
      value: Units that it counts; 0 makes a released barrier.
      ttl: Seconds.
    """

    id: str
    value: int
    ttl: int

    @property
    def ran(self) -> int:
        """Marker of the release: -1 before it, 0 after it."""
        return -1 if self.value else 0
