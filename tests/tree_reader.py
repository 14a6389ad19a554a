"""Reads trees in wire form as nodes, to compare them and to start recorded ones."""

from __future__ import annotations

from typing import Any

from dramatiq_sidekiq_flow.wire.nodes import Chain, Group, Job, Node, WithDelay, validate
from dramatiq_sidekiq_flow.wire.option_rules import RESERVED


def load(wire: Any) -> Node:
    """Read a tree.

    Raises:
      InvalidNode: if :func:`validate` refuses it.
    """
    validate(wire)
    return _load(wire)


def _load(wire: Any) -> Node:
    kind = wire["__type__"]
    if kind == "job":
        options = {key: value for key, value in wire.items() if key not in RESERVED or key == "jid"}
        job = Job.__new__(Job)
        # Not Job(...), which refuses misspelt names: another program may use options that are unknown here.
        job._set(wire["class"], tuple(wire["args"]), options)
        return job
    if kind == "with_delay":
        delayed = WithDelay.__new__(WithDelay)
        delayed._set(_load(wire["task"]), wire["delay"])
        return delayed
    children = map(_load, wire["children"])
    return Chain(*children) if kind == "chain" else Group(*children)
