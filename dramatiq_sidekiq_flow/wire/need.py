"""Groups that need some of their members only: ``Group(a, b, c, need=2)``.

In wire form such a group is a carrier whose ``wrapped`` is ``group needing N``, with the argument ``[N]``.  It
holds the group as the option :data:`payload_fields.GROUP_KEY`, which the plain gem passes on.  A Python process
that reaches it in a tree starts the group at once; one that Ruby pushed is started by the worker that runs it.

The barrier of the group has an id of version 8, which tells the number of members that may die (``_need.lua``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import InvalidWorkflow, shortened
from .payload_fields import GROUP_KEY

#: Beginning of the names under which these groups are carried.
PREFIX = "group needing "


@attrs.frozen
class Needing:
    """A group with its members in wire form, before it is carried."""

    need: int
    children: list[dict[str, Any]]


def checked_need(need: Any, members: int) -> int | None:
    """Check how many members a group needs; None if it needs all.

    Raises:
      InvalidWorkflow: if it is not a number from 1 to that of the members.
    """
    if need is None:
        return None
    if type(need) is not int or not 1 <= need <= members:
        raise InvalidWorkflow(
            f"need is the number of members that a group needs, from 1 to {members} here, not {shortened(need)}.", need
        )
    return need if need < members else None


def is_needing(name: Any) -> bool:
    """Return True if a step is carried under the name of such a group."""
    return isinstance(name, str) and name.startswith(PREFIX)


def dump_needing(node: Needing, noop_class: str) -> dict[str, Any]:
    """Convert such a group to its wire form, with the empty name of a queue."""
    name = f"{PREFIX}{node.need}"
    return {
        "__type__": "job",
        "class": noop_class,
        "args": [node.need],
        "queue": "",
        "retry": True,
        "wrapped": name,
        "display_class": name,
        GROUP_KEY: {"__type__": "group", "children": node.children},
    }


def group_of(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Get the group that a carrier holds, in wire form; None for any other job."""
    found = job.get(GROUP_KEY)
    return found if type(found) is dict else None


def need_of(job: Mapping[str, Any]) -> int:
    """Read how many members the group of a carrier needs: all, if that cannot be read."""
    members = len(job[GROUP_KEY]["children"])
    need = job["args"][0] if job["args"] else None
    return need if type(need) is int and 1 <= need <= members else members


def needing_barrier(barrier: str, spare: int) -> str:
    """Make the id of the barrier of such a group from any id.

    Parameters:
      spare: The number of members that may die.
    """
    return f"{spare:08x}{barrier[8:14]}8{barrier[15:]}"


def is_needing_barrier(barrier: str) -> bool:
    """Return True if a barrier is that of such a group."""
    return barrier[14:15] == "8"
