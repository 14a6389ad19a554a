"""Readable outline of a workflow: one line per step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..wire.death_nodes import fallback_of
from ..wire.dialect import NOOP_CLASSES
from ..wire.need import group_of, need_of
from ..wire.nodes import Wire
from ..wire.payload_fields import COUNTS_AS_DONE, DEATH_KEY
from ..wire.wait_for import is_wait

#: Maximum characters of a step's arguments in the outline.
ARGUMENTS = 60


def outline(wire: Wire) -> str:
    """Write a tree as lines, indented by nesting."""
    return "\n".join(_lines(wire, ""))


def _lines(node: Wire, indent: str) -> Iterator[str]:
    kind = node["__type__"]
    if kind == "job":
        yield from _job_lines(node, indent)
        return
    if kind == "with_delay":
        yield f"{indent}after {_time(node['delay'])}"
        yield from _lines(node["task"], indent + "  ")
        return
    yield f"{indent}{kind}{'' if node['children'] else ' (empty)'}"
    for child in node["children"]:
        yield from _lines(child, indent + "  ")


def _job_lines(job: Wire, indent: str) -> Iterator[str]:
    group, fallback = group_of(job), fallback_of(job)
    if group is not None:
        yield f"{indent}group, {need_of(job)} of {len(group['children'])} needed"
        for child in group["children"]:
            yield from _lines(child, indent + "  ")
    elif fallback is not None:
        yield f"{indent}catch"
        yield f"{indent}  {_step(job)}"
        yield f"{indent}  if it fails for good"
        yield from _lines(fallback, indent + "    ")
    else:
        yield indent + _step(job) + (", may fail" if job.get(DEATH_KEY) == COUNTS_AS_DONE else "")


def _step(job: Wire) -> str:
    name = job["class"]
    if name in NOOP_CLASSES:
        name = job.get("wrapped", name)
    text = "" if is_wait(name) else ", ".join(map(_shown, job["args"]))
    if len(text) > ARGUMENTS:
        text = text[: ARGUMENTS - 3] + "..."
    queue = job.get("queue")
    return (name if is_wait(name) else f"{name}({text})") + (f" in {queue}" if queue else "")


def _shown(value: Any) -> str:
    return repr(value)[: ARGUMENTS + 1]


def _time(delay: float) -> str:
    return f"{delay / 1000:g} s" if delay >= 1000 else f"{delay:g} ms"
