"""The tree that starts dead steps of a run anew, with all that comes after them.

It is made of their callback stacks.  Steps of one group have its barrier in common: in
the tree they are a group again, so that what follows that group runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from ..wire import codec
from ..wire.nodes import Wire, validate
from ..wire.payload import Payload
from ..wire.payload_fields import DIED_AS_KEY, DIED_IN_KEY
from ..wire.wait_for import UNTIL_KEY

#: Fields of one try of a job, which the next run of it does not have.
_OF_TRY = (
    *("error_class", "error_message", "error_backtrace", "failed_at", "retried_at", "retry_count"),
    *("created_at", "enqueued_at", "at", UNTIL_KEY, DIED_IN_KEY, DIED_AS_KEY),
)


def restored(member: bytes, retrieve: Callable[[Any], Any] | None = None) -> Payload | None:
    """Read a dead job that has left its run as the step that it was; None for another job.

    Parameters:
      retrieve: As of ``Payload.decode``.

    Raises:
      FlowError: if it cannot be read.
    """
    fields = codec.decode(member, limited=False)
    taken = fields.pop(DIED_AS_KEY, None)
    if type(taken) is not dict or DIED_IN_KEY not in fields:
        return None
    return Payload.decode(codec.encode({**fields, **taken}), retrieve)


def rebuilt(steps: Sequence[Payload], whole: Callable[[Wire], Wire]) -> Wire:
    """Make the tree of some steps of one run, none of which comes after another.

    Parameters:
      whole: What a callback starts -> the same without references.

    Raises:
      InvalidNode: if a step cannot be in a tree.
    """
    tree = _Rebuilding(whole).level(steps, 0)
    validate(tree)
    return tree


@attrs.frozen
class _Rebuilding:
    whole: Callable[[Wire], Wire]

    def level(self, steps: Sequence[Payload], depth: int) -> Wire:
        """Make the node of steps that have the lowest callbacks of their stacks in common."""
        parts = [_job(step) for step in steps if len(step.stack) == depth]
        inside: dict[str, list[Payload]] = {}
        for step in steps:
            if len(step.stack) > depth:
                inside.setdefault(step.stack[depth].barrier, []).append(step)
        parts += [self.behind(each, depth) for each in inside.values()]
        return parts[0] if len(parts) == 1 else {"__type__": "group", "children": parts}

    def behind(self, steps: Sequence[Payload], depth: int) -> Wire:
        """Make the node of steps that have one more callback in common, with what it starts."""
        node, remaining = self.level(steps, depth + 1), steps[0].stack[depth].remaining
        if remaining is None:
            return node
        return {"__type__": "chain", "children": [*_children(node), *_children(self.whole(remaining))]}


def _children(node: Wire) -> list[Wire]:
    children: list[Wire] = node["children"] if node["__type__"] == "chain" else [node]
    return children


def _job(step: Payload) -> Wire:
    of_run = (step.dialect.callbacks_key, step.dialect.run_id_key)
    return {"__type__": "job", **_without(step.fields, (*of_run, *_OF_TRY))}


def _without(fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in names}
