"""Barriers that a plan creates."""

from __future__ import annotations

import attrs


@attrs.frozen
class NewBarrier:
    """A barrier to create: ``SETEX id ttl value`` and ``SETEX id_ran ttl ran``."""

    id: str
    value: int
    ran: int
    ttl: int
