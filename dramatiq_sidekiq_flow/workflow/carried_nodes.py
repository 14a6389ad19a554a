"""Nodes that a worker of this package runs itself: WaitFor, and groups that need some of their members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConfigurationError, InvalidWorkflow
from ..wire.need import Needing, dump_needing
from ..wire.nodes import Wire
from ..wire.tree_times import completes_at_once
from ..wire.wait_for import WaitFor, dump_wait
from .engine import Engine
from .message_jids import without_jids


def carried(node: WaitFor | Needing, engine: Engine, dump_tree: Callable[[Any], Wire]) -> Wire:
    """Convert a node to the carrier that it is in wire form; its queue may have to be chosen later.

    Parameters:
      dump_tree: Converts a tree of its own to its wire form.

    Raises:
      ConfigurationError: if this broker cannot run it.
      InvalidWorkflow: if a member of a group has no steps.
    """
    return _wait(node, engine, dump_tree) if isinstance(node, WaitFor) else _needing(node, engine)


def _wait(node: WaitFor, engine: Engine, dump_tree: Callable[[Any], Wire]) -> Wire:
    if not engine.transport.replaces:
        raise ConfigurationError(
            "WaitFor needs a SidekiqBroker, without barriers of your own: there one script lets the step wait.",
            node,
        )
    otherwise = None if node.otherwise is None else dump_tree(node.otherwise)
    # It may time out twice, if it is retried by hand.
    return dump_wait(node, otherwise and without_jids(otherwise), node.queue or "", engine.settings.dialect.noop_class)


def _needing(node: Needing, engine: Engine) -> Wire:
    if not engine.transport.replaces:
        raise ConfigurationError(
            "Group(..., need=N) needs a SidekiqBroker, without barriers of your own: those count all members.",
            node.need,
        )
    if any(map(completes_at_once, node.children)):
        raise InvalidWorkflow("Each member of Group(..., need=N) must have a step.", node.children)
    return dump_needing(node, engine.settings.dialect.noop_class)
