"""Ids that the steps of a tree have before they are pushed: those of their messages."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

from ..wire.nodes import Wire, jobs


def with_ids(wire: Wire, ids: Mapping[str, str]) -> Wire:
    """Replace jids; return the tree, or a changed copy."""
    if not ids:
        return wire
    wire = copy.deepcopy(wire)
    for job in jobs(wire):
        if job.get("jid") in ids:
            job["jid"] = ids[job["jid"]]
    return wire


def without_ids(wire: Wire, ids: Collection[str]) -> Wire:
    """Copy a tree without these jids."""
    wire = copy.deepcopy(wire)
    for job in jobs(wire):
        if job.get("jid") in ids:
            del job["jid"]
    return wire


def without_jids(wire: Wire) -> Wire:
    """Copy a tree without any jid."""
    return without_ids(wire, {job["jid"] for job in jobs(wire) if "jid" in job})
