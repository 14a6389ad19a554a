"""Warns of workflows whose callback stacks make their payloads large."""

from __future__ import annotations

import attrs
from dramatiq.logging import get_logger

from ..wire import codec
from ..wire.nodes import Wire
from .stack_references import LARGE, IsPython

#: A workflow of fewer jobs is not weighed.
FEWEST_JOBS = 100

#: Bytes that the payloads of a workflow may carry together before it is warned of.
HEAVY = 1024 * 1024

_logger = get_logger(__name__)
_warned: set[tuple[int, int]] = set()


def warn_of_size(wire: Wire, jobs: int, is_python: IsPython | None = None) -> None:
    """Warn, once for workflows of a size, of one whose payloads carry much that is still to come.

    Parameters:
      is_python: As :func:`weight`.
    """
    if jobs < FEWEST_JOBS:
        return
    carried = weight(wire, is_python)
    size = (jobs, carried.bit_length())
    if carried >= HEAVY and size not in _warned:
        _warned.add(size)
        _logger.warning(
            "The %d jobs of this workflow carry what follows them: %s together, %s a job on average, each time that "
            "one is pushed or fetched. With WorkflowMiddleware(callback_storage=RedisCallbackStorage()) it is stored "
            "once, and a job carries a reference.",
            jobs,
            _readable(carried),
            _readable(carried // jobs),
        )


def weight(wire: Wire, is_python: IsPython | None = None) -> int:
    """How many bytes of what is still to come the payloads of a workflow carry together.

    Parameters:
      is_python: Where large trees go by reference: whether Python takes a job.
    """
    return _weigh(wire, is_python or (lambda job: False)).carried


@attrs.frozen
class _Weight:
    """What a tree weighs.

    Attributes:
      jobs: How many it has.
      size: Its bytes.
      carried: Bytes that its jobs carry of what follows them in it.
      python: Whether all of them are Python's.
    """

    jobs: int
    size: int
    carried: int
    python: bool


def _weigh(node: Wire, is_python: IsPython) -> _Weight:
    kind = node["__type__"]
    if kind == "job":
        return _Weight(1, len(codec.encode(node)), 0, is_python(node))
    if kind == "with_delay":
        task = _weigh(node["task"], is_python)
        return attrs.evolve(task, size=task.size + 50)
    children = [_weigh(child, is_python) for child in node["children"]]
    together = _together(children)
    if kind == "chain":
        return attrs.evolve(together, carried=together.carried + _carried_along(children))
    return together


def _together(children: list[_Weight]) -> _Weight:
    """The weight of a group of these."""
    jobs = size = carried = 0
    python = True
    for child in children:
        jobs += child.jobs
        size += child.size + 1
        carried += child.carried
        python = python and child.python
    return _Weight(jobs, size + 35, carried, python)


def _carried_along(children: list[_Weight]) -> int:
    """Bytes that the steps of a chain carry of the steps after them."""
    size = after = 0
    linked = True
    for child in reversed(children):
        if child.python and linked and size >= LARGE:
            after = 0  # by reference from here to its end
        else:
            after += child.jobs * size
        linked = linked if child.python else 3 * child.size >= size
        size += child.size + 1
    return after


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1000:.1f} kB"
