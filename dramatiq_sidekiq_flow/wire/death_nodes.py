"""Nodes for a step that may fail for good without stopping its run: MayFail and Catch.

On the wire each is its step, with the option :data:`payload_fields.DEATH_KEY`, which
the plain gem passes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ..errors import InvalidWorkflow
from .payload_fields import COUNTS_AS_DONE, DEATH_KEY, GROUP_KEY


@attrs.frozen(init=False, repr=False)
class MayFail:
    """A step that counts as done if it fails for good: the run goes on, and keeps the error.

    Examples:

      >>> Chain(MayFail(thumbnail.message(7)), publish.message(7))

    Parameters:
      step: A Job or a message.

    Raises:
      InvalidWorkflow: by the Workflow, if it is a chain, a group or another node.
    """

    step: Any

    def __init__(self, step: Any) -> None:
        self.__attrs_init__(step)

    @property
    def children(self) -> tuple[Any, ...]:
        """The step."""
        return (self.step,)

    def __repr__(self) -> str:
        return f"MayFail({self.step!r})"


@attrs.frozen(init=False, repr=False)
class Catch:
    """A step with a node that runs in its place if it fails for good.

    Examples:

      >>> Chain(Catch(card.message(7), Chain(invoice.message(7), tell.message())), ship.message(7))

    Parameters:
      step: A Job or a message.
      fallback: Any node.

    Raises:
      InvalidWorkflow: by the Workflow, if the step is a chain, a group or another node.
    """

    step: Any
    fallback: Any

    def __init__(self, step: Any, fallback: Any) -> None:
        self.__attrs_init__(step, fallback)

    @property
    def children(self) -> tuple[Any, ...]:
        """The step and the fallback."""
        return self.step, self.fallback

    def __repr__(self) -> str:
        return f"Catch({self.step!r}, {self.fallback!r})"


def with_policy(node: MayFail | Catch, wire: dict[str, Any] | None, fallback: dict[str, Any] | None) -> dict[str, Any]:
    """Make the wire form of a node, of those of its step and its fallback.

    Parameters:
      wire: Of its step; None if that is not a step.

    Raises:
      InvalidWorkflow: if that is not a step.
    """
    if wire is None:
        kind = type(node).__name__
        raise InvalidWorkflow(
            f"{kind} takes one step, Job(...) or actor.message(...), not {node.step!r:.200}. For a chain or a group, "
            f"wrap each of its steps: Chain({kind}(...), {kind}(...)).",
            node,
        )
    wire[DEATH_KEY] = COUNTS_AS_DONE if fallback is None else fallback
    return wire


def count_steps(node: dict[str, Any]) -> int:
    """Count the jobs of a tree in wire form, without those of fallbacks."""
    is_step = node["__type__"] == "job" and GROUP_KEY not in node
    return 1 if is_step else sum(map(count_steps, parts(node)))


def parts(node: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Get the nodes right inside a node in wire form: its children, its task, its fallback, or the group it carries."""
    found: Any = node.get("children") or node.get("task") or fallback_of(node) or node.get(GROUP_KEY) or ()
    return (found,) if type(found) is dict else found


def is_plain(node: Mapping[str, Any]) -> bool:
    """Return True for a job that has no other job inside."""
    return node["__type__"] == "job" and type(node.get(DEATH_KEY)) is not dict and GROUP_KEY not in node


def fallback_of(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Get the tree, in wire form, that runs in the place of a job that is dead; None if it has none."""
    found = job.get(DEATH_KEY)
    return found if type(found) is dict else None
