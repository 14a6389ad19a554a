"""A barrier that is to be made."""

from __future__ import annotations

import attrs


@attrs.frozen
class NewBarrier:
    """A barrier to make: ``SETEX id ttl value`` and ``SETEX id_ran ttl ran``."""

    id: str
    value: int
    ran: int
    ttl: int
