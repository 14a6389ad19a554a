"""WaitFor: a step that waits for a signal to its run.

In wire form it is a carrier whose ``wrapped`` is ``wait for NAME``, with the arguments
``[NAME, TIMEOUT, OTHERWISE]``: milliseconds or null, and a tree in wire form or null.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs

from ..errors import InvalidPayload, InvalidWorkflow, PayloadError, shortened
from . import codec
from .nodes import Wire, validate
from .tree_schema import MAX_DELAY

#: Beginning of the names under which these steps are carried.
PREFIX = "wait for "

#: Longest name of a signal, in characters.
MAX_SIGNAL = 200

#: The option that says until when a step waits, in epoch seconds.
UNTIL_KEY = "swf_waits_until"


@attrs.frozen(init=False)
class WaitFor:
    """A step that is done when its run gets a signal; ``Runs.signal`` sends one.

    Examples:

      >>> Workflow(Chain(draft.message(7), WaitFor("approved", timedelta(days=3)), publish.message(7))).run()
      >>> Runs(broker).signal(run_id, "approved", {"by": "Ada"})

    Parameters:
      name: The name of the signal.  The data of the signal is written to the memory of the run under this name.
      timeout: Milliseconds, or a timedelta; None waits for half a year, as long as Sidekiq keeps dead jobs.
      otherwise: What runs in its place if the signal has not come in time, a node or a message; ``Chain()`` just
        goes on.  None: the step dies with SignalTimeout, and a retry by hand waits anew.
      queue: Queue of a Python worker; by default that of a Python step of the workflow, or one that this process
        declares.

    Raises:
      InvalidWorkflow: if the name or the timeout is invalid.
    """

    name: str
    timeout: int | None
    otherwise: Any
    queue: str | None

    def __init__(
        self, name: str, timeout: int | timedelta | None = None, otherwise: Any = None, queue: str | None = None
    ) -> None:
        self.__attrs_init__(_checked_name(name), _milliseconds(timeout), otherwise, _checked_queue(queue))


def is_signal_name(name: Any) -> bool:
    """Return True if a signal may have this name."""
    return isinstance(name, str) and 0 < len(name) <= MAX_SIGNAL and name.isprintable()


def _checked_name(name: Any) -> str:
    if is_signal_name(name):
        return str(name)
    raise InvalidWorkflow(
        f"A signal has a name of 1 to {MAX_SIGNAL} printable characters, not {shortened(name)}.", name
    )


def _milliseconds(timeout: Any) -> int | None:
    if isinstance(timeout, timedelta):
        timeout = round(timeout.total_seconds() * 1000)
    if _is_timeout(timeout):
        return timeout  # type: ignore[no-any-return]
    raise InvalidWorkflow(f"timeout must be milliseconds or a timedelta, not {shortened(timeout)}.", timeout)


def _is_timeout(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value <= MAX_DELAY)


def _checked_queue(queue: Any) -> str | None:
    if queue is None or (isinstance(queue, str) and queue):
        return queue
    raise InvalidWorkflow(f"queue must be the name of a queue, not {shortened(queue)}.", queue)


def is_wait(name: Any) -> bool:
    """Return True if a step is carried under the name of a WaitFor."""
    return isinstance(name, str) and name.startswith(PREFIX)


def waiting_for(raw: bytes) -> str | None:
    """Read the name of the signal that a job waits for now; None if it waits for none."""
    fields = _waiting(raw)
    return None if fields is None else str(fields["wrapped"]).removeprefix(PREFIX)


def waits_on_queue(raw: bytes) -> str | None:
    """Read the queue where a job that waits for a signal goes on; None if it waits for none."""
    queue = (_waiting(raw) or {}).get("queue")
    return queue if isinstance(queue, str) and queue else None


def _waiting(raw: bytes) -> dict[str, Any] | None:
    """Read a job that waits for a signal now; None for another one."""
    if UNTIL_KEY.encode() not in raw:
        return None
    try:
        fields = codec.decode(raw)
    except PayloadError:
        return None
    return fields if is_wait(fields.get("wrapped")) else None


def dump_wait(node: WaitFor, otherwise: Wire | None, queue: str, noop_class: str) -> Wire:
    """Convert a node to its wire form."""
    name = PREFIX + node.name
    return {
        "__type__": "job",
        "class": noop_class,
        "args": [node.name, node.timeout, otherwise],
        "queue": queue,
        "retry": True,
        "wrapped": name,
        "display_class": name,
    }


@attrs.frozen
class Wait:
    """Arguments of a step that waits, as they were read.

    Attributes:
      timeout: Milliseconds; None for no limit.
      otherwise: A tree in wire form; None without.
      until: Epoch seconds of the time limit, if the step waits already; else None.
    """

    name: str
    timeout: int | None
    otherwise: Wire | None
    until: float | None

    @classmethod
    def of(cls, args: list[Any], fields: Mapping[str, Any], raw: bytes) -> Wait:
        """Read a step.

        Raises:
          InvalidPayload, InvalidNode: if its arguments are not those of a WaitFor.
        """
        name, timeout, otherwise = [*args, None, None, None][:3]
        if not is_signal_name(name) or not _is_timeout(timeout):
            raise InvalidPayload(f"The arguments of a WaitFor cannot be read: {shortened(args)}.", raw)
        if otherwise is not None:
            validate(otherwise)
        return cls(name, timeout, otherwise, _until(fields))


def _until(fields: Mapping[str, Any]) -> float | None:
    until = fields.get(UNTIL_KEY)
    # Its time was over when it died: a retry by hand waits anew.
    is_over = fields.get("error_class") == "SignalTimeout"
    return until if type(until) is float and not is_over else None
