"""What callback stacks weigh when they travel in the payloads, as they do in the gem."""

from __future__ import annotations

from dramatiq.logging import get_logger

from ..wire import codec
from ..wire.nodes import Wire

#: A workflow of fewer jobs is not weighed.
FEWEST_JOBS = 100

#: Bytes that the payloads of a workflow may carry together before it is warned of.
HEAVY = 1024 * 1024

_logger = get_logger(__name__)
_warned: set[tuple[int, int]] = set()


def warn_of_weight(wire: Wire, jobs: int) -> None:
    """Warn, once for workflows of a size, of one whose payloads carry much that is still to come."""
    if jobs < FEWEST_JOBS:
        return
    _, _, carried = _weigh(wire)
    size = (jobs, carried.bit_length())
    if carried >= HEAVY and size not in _warned:
        _warned.add(size)
        _logger.warning(
            "Each of the %d jobs of this workflow carries what follows it: %s together, %s a job on average, each "
            "time that one is pushed or fetched. With WorkflowMiddleware(callback_storage=RedisCallbackStorage()) it "
            "is stored once, and a job carries a reference.",
            jobs,
            _readable(carried),
            _readable(carried // jobs),
        )


def weight(wire: Wire) -> int:
    """How many bytes of what is still to come the payloads of a workflow carry together."""
    return _weigh(wire)[2]


def _weigh(node: Wire) -> tuple[int, int, int]:
    """Jobs in a tree, its bytes, and the bytes that its jobs carry of what follows them inside it."""
    kind = node["__type__"]
    if kind == "job":
        return 1, len(codec.encode(node)), 0
    if kind == "with_delay":
        jobs, size, carried = _weigh(node["task"])
        return jobs, size + 50, carried
    jobs = size = carried = 0
    # From the end: in a chain each step carries all that come after it.
    for child in reversed(node["children"]):
        its_jobs, its_size, its_carried = _weigh(child)
        carried += its_carried + (its_jobs * size if kind == "chain" else 0)
        jobs += its_jobs
        size += its_size + 1
    return jobs, size + 35, carried


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1000:.1f} kB"
