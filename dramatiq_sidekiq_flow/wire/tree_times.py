"""Times of a tree in wire form: its delays, its latest start, and whether it has to wait at all."""

from __future__ import annotations

from .death_nodes import is_plain, parts
from .nodes import Wire, jobs


def total_delay(wire: Wire) -> float:
    """Compute the longest sum of the delays on one path of a tree, in milliseconds."""
    kind = wire["__type__"]
    if kind == "with_delay":
        return max(0.0, float(wire["delay"])) + total_delay(wire["task"])
    if kind == "reference":
        return float(wire.get("delay", 0))
    delays = [total_delay(child) for child in parts(wire) if not is_plain(child)]
    return sum(delays) if kind == "chain" else max(delays, default=0.0)


def latest_start(wire: Wire) -> float:
    """Find the latest ``at`` of the jobs of a tree, in epoch seconds; 0 if no job has one."""
    if wire["__type__"] == "reference":
        # The "at" of a reference is an index; a chain whose jobs have an "at" is never stored.
        return 0.0
    starts = [float(job["at"]) for job in jobs(wire) if "at" in job]
    return max(starts, default=0.0)


def completes_at_once(node: Wire) -> bool:
    """Return True if a tree has no jobs to run and no delay to wait for."""
    kind = node["__type__"]
    if kind in ("job", "reference"):
        return False
    if kind == "with_delay":
        return not node["delay"] and completes_at_once(node["task"])
    return all(map(completes_at_once, node["children"]))
