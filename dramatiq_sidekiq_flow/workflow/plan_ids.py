"""Ids of the jobs and barriers of a plan."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from typing import Protocol

import attrs


class Ids(Protocol):
    """Makers of ids.  Each id of a plan is made once, so that a plan which is sent twice has the same bytes."""

    def new_jid(self) -> str: ...
    def new_barrier(self) -> str: ...


@attrs.define
class _DerivedIds:
    """Makers of ids that are the same for the same name."""

    name: str
    _jids: itertools.count[int] = attrs.field(factory=itertools.count, init=False)
    _barriers: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    def new_jid(self) -> str:
        return hashlib.sha256(f"{self.name}:job:{next(self._jids)}".encode()).hexdigest()[:24]

    def new_barrier(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name}:barrier:{next(self._barriers)}"))


def derived(name: str) -> Ids:
    """Make makers of ids that are the same for the same name, so that a repeated plan pushes the same jobs."""
    return _DerivedIds(name)
