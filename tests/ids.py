"""Makers of ids, for plans."""

from __future__ import annotations

import itertools
import uuid


class Numbered:
    """Makers of ids that count: ``j0, j1, ...`` and ``b0, b1, ...``.

    Parameters:
      jids: How a jid is formed from its number.
      uuids: Barriers have random UUIDs instead.
    """

    def __init__(self, jids: str = "j{}", *, uuids: bool = False) -> None:
        self._jids = jids
        self._uuids = uuids
        self._numbers, self._barriers = itertools.count(), itertools.count()

    def new_jid(self) -> str:
        return self._jids.format(next(self._numbers))

    def new_barrier(self) -> str:
        return str(uuid.uuid4()) if self._uuids else f"b{next(self._barriers)}"
