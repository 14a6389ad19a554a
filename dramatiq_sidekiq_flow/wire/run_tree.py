"""Compact tree of a run, which its record keeps: JSON, made from the wire form when the run starts.

    {"step": "extract", "queue": "python", "args": "42, 'a'"}     "ruby": true if Ruby runs it
                                                                  "may_fail": true if it may fail for good
    {"catch": step, "fallback": node}                             the fallback's steps are numbered after the step
    {"chain": [node, ...]}, {"group": [node, ...]}                "need": how many of the members, if not all
    {"delay": MILLISECONDS, "node": node}
    {"times": 10000, "node": node}                                siblings that are equal but for their arguments

``wire.tree_nodes`` reads it.
"""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import codec
from .death_nodes import fallback_of
from .dialect import NOOP_CLASSES
from .need import group_of, need_of
from .nodes import Wire
from .payload_fields import COUNTS_AS_DONE, DEATH_KEY, GROUP_KEY, WRAPPERS
from .wait_for import is_wait

#: More equal siblings than this are folded into one node.
MOST_ALIKE = 20

#: Longest text of the arguments of a step.
MOST_ARGS = 60

#: A tree with more steps that are not folded is written without arguments.
MOST_WITH_ARGS = 1000

#: Classes of jobs that ``wrapped`` names.
_WRAPPERS = NOOP_CLASSES | WRAPPERS

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = MOST_ARGS
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 10
_repr.maxlevel = 4


def dump_tree(wire: Wire, is_ruby: Callable[[Mapping[str, Any]], bool], args: bool = True) -> bytes:
    """Write the compact tree of a run.

    Parameters:
      wire: The tree in wire form.
      is_ruby: Job in wire form -> True if Ruby runs it; called once for each class and queue.
      args: False leaves out the arguments of all steps.  They are left out in
        large trees, too: where steps are folded, and with more than 1,000 steps that are not.
    """
    writer = _Writer(is_ruby)
    shape = writer.shape(wire)
    return codec.encode(writer.written(wire, shape, args and writer.alone(shape) <= MOST_WITH_ARGS))


def name_of(job: Mapping[str, Any]) -> str:
    """Name of a job: its class, or the actor or class that a wrapper carries."""
    name: str = job["class"]
    wrapped: str | None = job.get("wrapped")
    return wrapped if wrapped and name in _WRAPPERS else name


class _Writer:
    """Gives equal nodes the same *shape*, a number, so that siblings are compared fast."""

    def __init__(self, is_ruby: Callable[[Mapping[str, Any]], bool]) -> None:
        self.is_ruby = is_ruby
        #: What is written for a shape, without arguments.
        self.nodes: list[Wire] = []
        #: Runs of equal children of a shape: shape and number of each.
        self.runs: list[list[tuple[int, int]]] = []
        #: Steps of a shape that are not folded.
        self.steps: list[int] = []
        self.jobs: dict[tuple[str, Any, Any, bool], int] = {}
        self.branches: dict[tuple[Any, ...], int] = {}
        #: Shape of a branch, delay or step with a fallback by its id(): the tree keeps it alive.
        self.known: dict[int, int] = {}

    def shape(self, node: Wire) -> int:
        if node["__type__"] == "job":
            return self._shape_of_job(node)
        found = self.known[id(node)] = self._with_delay(node) if "task" in node else self._branch(node)
        return found

    def _shape_of_job(self, job: Wire) -> int:
        group = group_of(job)
        if group is not None:
            found = self.known[id(job)] = self._branch(group, need_of(job))
            return found
        return self._job(job) if fallback_of(job) is None else self._catch(job)

    def alone(self, shape: int) -> int:
        return self.steps[shape]

    def _job(self, job: Wire) -> int:
        # Two wrapped jobs may have the same class, and two jobs of a class different queues.
        key = (job["class"], job.get("queue"), job.get("wrapped"), job.get(DEATH_KEY) == COUNTS_AS_DONE)
        found = self.jobs.get(key)
        if found is None:
            written: Wire = {"step": name_of(job)}
            if job.get("queue"):
                written["queue"] = job["queue"]
            if self.is_ruby(job):
                written["ruby"] = True
            if key[-1]:
                written["may_fail"] = True
            found = self.jobs[key] = self._new(written, [], 1)
        return found

    def _catch(self, job: Wire) -> int:
        step, fallback = self._job(job), self.shape(job[DEATH_KEY])
        key = ("catch", step, fallback)
        found = self.branches.get(key)
        if found is None:
            written = {"catch": self.nodes[step], "fallback": self.nodes[fallback]}
            found = self.branches[key] = self._new(written, [(step, 1), (fallback, 1)], 1 + self.steps[fallback])
        self.known[id(job)] = found
        return found

    def _with_delay(self, node: Wire) -> int:
        inner = self.shape(node["task"])
        key = ("delay", node["delay"], inner)
        found = self.branches.get(key)
        if found is None:
            written = {"delay": node["delay"], "node": self.nodes[inner]}
            found = self.branches[key] = self._new(written, [(inner, 1)], self.steps[inner])
        return found

    def _branch(self, node: Wire, need: int = 0) -> int:
        jobs = self.jobs
        shapes = [
            # A look-up less for each job: most children are jobs.
            (
                child["__type__"] == "job"
                and DEATH_KEY not in child
                and GROUP_KEY not in child
                and jobs.get((child["class"], child.get("queue"), child.get("wrapped"), False))
            )
            or self.shape(child)
            for child in node["children"]
        ]
        runs = [(shape, sum(1 for _ in alike)) for shape, alike in itertools.groupby(shapes)]
        key = (node["__type__"], need, *runs)
        found = self.branches.get(key)
        if found is None:
            found = self.branches[key] = self._new_branch(node["__type__"], runs, need)
        return found

    def _new_branch(self, kind: str, runs: list[tuple[int, int]], need: int) -> int:
        steps = sum(self.steps[shape] * (times if times <= MOST_ALIKE else 1) for shape, times in runs)
        children = [each for shape, times in runs for each in self._alike(shape, times)]
        return self._new(_branch_node(kind, children, need), runs, steps)

    def _alike(self, shape: int, times: int) -> list[Wire]:
        node = self.nodes[shape]
        return [{"times": times, "node": node}] if times > MOST_ALIKE else [node] * times

    def _new(self, written: Wire, runs: list[tuple[int, int]], steps: int) -> int:
        self.nodes.append(written)
        self.runs.append(runs)
        self.steps.append(steps)
        return len(self.nodes) - 1

    def written(self, node: Wire, shape: int, args: bool) -> Wire:
        """Make the compact form of a node, with the arguments of the steps that are not folded."""
        without = self.nodes[shape]
        if not args:
            return without
        if node["__type__"] == "job":
            return self._written_job(node, without)
        if "task" in node:
            task = node["task"]
            return {"delay": node["delay"], "node": self.written(task, self._shape_of(task), args)}
        return {node["__type__"]: list(self._children(node, shape))}

    def _written_job(self, job: Wire, without: Wire) -> Wire:
        group = group_of(job)
        if group is not None:
            return _branch_node("group", list(self._children(group, self.known[id(job)])), need_of(job))
        text = "" if is_wait(job.get("wrapped")) else shown(job["args"])
        fallback = fallback_of(job)
        if fallback is None:
            return {**without, "args": text} if text else without
        step = {**without["catch"], "args": text} if text else without["catch"]
        return {"catch": step, "fallback": self.written(fallback, self._shape_of(fallback), True)}

    def _children(self, node: Wire, shape: int) -> Iterator[Wire]:
        children = iter(node["children"])
        for each, times in self.runs[shape]:
            alike = list(itertools.islice(children, times))
            if times > MOST_ALIKE:
                yield {"times": times, "node": self.nodes[each]}
            else:
                yield from (self.written(child, each, True) for child in alike)

    def _shape_of(self, node: Wire) -> int:
        found = self.known.get(id(node))
        return self._job(node) if found is None else found


def _branch_node(kind: str, children: list[Wire], need: int) -> Wire:
    return {kind: children, "need": need} if need else {kind: children}


def shown(args: list[Any]) -> str:
    """Show arguments as text of at most 60 characters."""
    parts: list[str] = []
    length = 0
    for value in args:
        if length > MOST_ARGS:
            break
        parts.append(_text(value))
        length += len(parts[-1]) + 2
    text = ", ".join(parts)
    return text if len(text) <= MOST_ARGS else text[: MOST_ARGS - 3] + "..."


def _text(value: Any) -> str:
    if type(value) is str and len(value) > MOST_ARGS:
        return repr(value[: MOST_ARGS + 1])
    try:
        return _repr.repr(value)
    except Exception:  # an integer of more digits than Python writes
        return f"<{type(value).__name__}>"
