"""End of a run: a job that does nothing, behind the last steps of a run, if Ruby runs one of them.

Ruby with the plain gem ends a run without a trace.  This job, a NoopWorker on a Python
queue, is the last one of the run then: the script that acknowledges it ends the run.  It
is not a step: in the place of a number it has :data:`OF_RUN` or :data:`OF_TREE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .death_nodes import fallback_of
from .need import group_of
from .nodes import Wire
from .payload_fields import STEP_KEY
from .tree_times import completes_at_once

#: Name of such a job.
NAME = "end of run"

#: The number of the job at the end of a run: all steps of the run are done.
OF_RUN = 0

#: The number of the job at the end of a tree that replaced a step of a last group.
OF_TREE = -1

#: Returns True if Ruby runs a job.
IsRuby = Callable[[Mapping[str, Any]], bool]


def ends_in_ruby(node: Wire, is_ruby: IsRuby) -> bool:
    """Return True if Ruby may run a last step of a tree in wire form, also one of a fallback."""
    if node["__type__"] == "job":
        return _job_ends(node, is_ruby)
    if node["__type__"] == "with_delay":
        # A delayed empty node is a job of Python's.
        return not completes_at_once(node["task"]) and ends_in_ruby(node["task"], is_ruby)
    return any(ends_in_ruby(child, is_ruby) for child in _last_children(node))


def _job_ends(job: Wire, is_ruby: IsRuby) -> bool:
    group, fallback = group_of(job), fallback_of(job)
    if group is not None:
        return ends_in_ruby(group, is_ruby)
    return is_ruby(job) or (fallback is not None and ends_in_ruby(fallback, is_ruby))


def _last_children(node: Wire) -> list[Wire]:
    """The children of a chain or a group that end last: all of a group."""
    children: list[Wire] = node["children"]
    if node["__type__"] == "group":
        return children
    last = next((child for child in reversed(children) if not completes_at_once(child)), None)
    return [] if last is None else [last]


def with_end(wire: Wire, noop_class: str, queue: str, number: int = OF_RUN) -> Wire:
    """Put the job that ends a run behind a tree in wire form, which stays as it is.

    Parameters:
      noop_class: Class of a job that does nothing.
      queue: A queue that Python consumes.
      number: :data:`OF_RUN` or :data:`OF_TREE`.
    """
    end = {
        "__type__": "job",
        "class": noop_class,
        "args": [],
        "queue": queue,
        "retry": True,
        "display_class": NAME,
        STEP_KEY: number,
    }
    before = wire["children"] if wire["__type__"] == "chain" else [wire]
    return {"__type__": "chain", "children": [*before, end]}


def is_end(number: Any) -> bool:
    """Return True if the job of this number ends a run."""
    return number in (OF_RUN, OF_TREE) and type(number) is int
