"""The barriers that a job needs, read from its payload without a check of the rest."""

from __future__ import annotations

from typing import Any

from ..errors import PayloadError
from ..wire import codec
from ..wire.dialect import SIDELINE, WORKFLOW
from ..wire.need import is_needing_barrier


def barriers_of(payload: bytes) -> set[str]:
    """Read the ids of the barriers in the callback stack of a job; none if a callback storage has the stack.

    A step goes on without the barrier of a group that needs some of its members, as one that is late.
    """
    try:
        fields = codec.decode(payload)
    except PayloadError:
        return set()
    stacks = (fields.get(dialect.callbacks_key) for dialect in (WORKFLOW, SIDELINE))
    return {id for stack in stacks if type(stack) is list for id in map(_barrier, stack) if id}


def _barrier(entry: Any) -> str:
    id = entry[0] if type(entry) is list and entry and type(entry[0]) is str else ""
    return "" if is_needing_barrier(id) else id
