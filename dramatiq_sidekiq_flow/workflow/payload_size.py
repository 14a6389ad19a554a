"""Warnings of workflows whose callback stacks make their payloads large."""

from __future__ import annotations

import attrs
from dramatiq.logging import get_logger

from ..wire import codec
from ..wire.need import group_of
from ..wire.nodes import Wire
from .stack_references import LARGE, IsPython

#: Minimum number of jobs of a workflow whose size is computed.
FEWEST_JOBS = 100

#: Bytes of callback stacks, over all payloads of a workflow, from which it is warned of.
HEAVY = 1024 * 1024

_logger = get_logger(__name__)
_warned: set[tuple[int, int]] = set()


def warn_of_size(wire: Wire, jobs: int, is_python: IsPython | None = None) -> None:
    """Warn, once for workflows of about the same size, if the callback stacks make the payloads large.

    Parameters:
      is_python: As :func:`weight`.
    """
    if jobs < FEWEST_JOBS or not _has_chain(wire):
        return
    carried = weight(wire, is_python)
    size = (jobs, carried.bit_length())
    if carried >= HEAVY and size not in _warned:
        _warned.add(size)
        _logger.warning(
            "The %d jobs of this workflow carry the steps that come after them: %s together, %s a job on average, "
            "each time that a job is pushed or fetched. With "
            "WorkflowMiddleware(callback_storage=RedisCallbackStorage()) the steps are stored once, and a job "
            "carries a reference.",
            jobs,
            _readable(carried),
            _readable(carried // jobs),
        )


def weight(wire: Wire, is_python: IsPython | None = None) -> int:
    """Estimate the bytes of the callback stacks of all payloads of a workflow together.

    Parameters:
      is_python: True for a job that Python runs; None if large trees are never
        carried by reference.
    """
    return _weigh(wire, is_python or (lambda job: False)).carried


def _has_chain(node: Wire) -> bool:
    """Return True if a step of a tree carries others, which only those of a chain do."""
    kind = node["__type__"]
    if kind == "job":
        return False
    if kind == "with_delay":
        return _has_chain(node["task"])
    children = node["children"]
    if kind == "chain" and len(children) > 1:
        return True
    return any(_has_chain(child) for child in children if child["__type__"] != "job")


@attrs.frozen
class _Weight:
    """Size of a tree.

    Attributes:
      jobs: Number of its jobs.
      size: Its bytes.
      carried: Bytes of the later steps of this tree that its jobs carry.
      python: True if Python runs all jobs that run last in it.
    """

    jobs: int
    size: int
    carried: int
    python: bool


def _weigh(node: Wire, is_python: IsPython) -> _Weight:
    node = group_of(node) or node
    kind = node["__type__"]
    if kind == "job":
        return _Weight(1, len(codec.encode(node)), 0, is_python(node))
    if kind == "with_delay":
        task = _weigh(node["task"], is_python)
        return attrs.evolve(task, size=task.size + 50)
    children = [_weigh(child, is_python) for child in node["children"]]
    together = _together(children)
    if kind == "chain":
        carried = together.carried + _carried_along(children)
        return attrs.evolve(together, carried=carried, python=bool(children) and children[-1].python)
    return together


def _together(children: list[_Weight]) -> _Weight:
    """Add the weights of the members of a group."""
    jobs = size = carried = 0
    python = bool(children)
    for child in children:
        jobs += child.jobs
        size += child.size + 1
        carried += child.carried
        python = python and child.python
    return _Weight(jobs, size + 35, carried, python)


def _carried_along(children: list[_Weight]) -> int:
    """Compute the bytes of later steps that the steps of a chain carry.

    A step carries whole the steps up to the next one that ends in Python, and the
    steps after that one by reference.
    """
    size = whole = after = 0
    for child in reversed(children):
        if child.python and size >= LARGE:
            whole = 0
        after += child.jobs * whole
        size += child.size + 1
        whole += child.size + 1
    return after


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1000:.1f} kB"
