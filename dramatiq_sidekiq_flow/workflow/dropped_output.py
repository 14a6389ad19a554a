"""Warnings of steps whose return value is dropped."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from dramatiq import Broker
from dramatiq.logging import get_logger
from dramatiq.results import Results

from ..broker.dramatiq_internals import dropped_value_loggers, returned_values

_logger = get_logger(__name__)


class DroppedOutput:
    """Warnings of dropped return values, once for each actor.

    Parameters:
      broker: A Results middleware of this broker stores every value.
      has_memory: True if workflows have a memory, which stores mappings.
    """

    def __init__(self, broker: Broker, has_memory: bool) -> None:
        self.broker = broker
        self.has_memory = has_memory
        self._warned: set[str] = set()

    def warn(self, actor_name: str, value: Any) -> None:
        """Warn if the return value of a step is dropped."""
        if value is None or actor_name in self._warned:
            return
        if self.has_memory and isinstance(value, Mapping):
            return
        self._warned.add(actor_name)
        if not self._has_results():
            _log_drop(actor_name, value)

    def _has_results(self) -> bool:
        return any(isinstance(middleware, Results) for middleware in self.broker.middleware)


def _log_drop(actor_name: str, value: Any) -> None:
    """Log why a value is dropped, and how to keep it."""
    if isinstance(value, Mapping):
        _logger.warning(
            "%s is a step of a workflow and returns a mapping, which is dropped, since workflows have no memory "
            "here. To keep it for the next steps, use WorkflowMiddleware(memory=RedisHashMemory()).",
            actor_name,
        )
    else:
        _logger.warning(
            "%s is a step of a workflow and returns a value of type %s, which is dropped: the run's memory keeps "
            'mappings. Return {"name": value} for the next steps, or add Dramatiq\'s Results middleware. '
            "The value is not passed to the next step as an argument.",
            actor_name,
            type(value).__name__,
        )


class _KeptOutput(logging.Filter):
    """Log filter for Dramatiq's warning that a return value was discarded.

    It drops the warning if the value was kept, or if :class:`DroppedOutput` warns
    of it.  Dramatiq warns for each job that returns a value without the Results
    middleware.  The record does not hold the value, so it is read from the frame
    that logs.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if "returned a value that is not None" not in str(record.msg):
            return True
        in_worker = record.name.endswith("WorkerThread")
        for found in returned_values(sys._getframe()):
            if in_worker and _is_of_run(found.message):
                return False  # DroppedOutput warns once, and says what to do
            if found.value is not None:
                return not isinstance(found.value, Mapping)
        return True


def _is_of_run(message: Any) -> bool:
    """Return True if a message is a step of a run."""
    payload = getattr(message, "payload", None)
    return payload is not None and payload.run_id is not None


def quieten_dramatiq() -> None:
    """Filter Dramatiq's warning of a discarded value if it is wrong, or if :class:`DroppedOutput` warns."""
    for logger in dropped_value_loggers():
        if not any(isinstance(f, _KeptOutput) for f in logger.filters):
            logger.addFilter(_KeptOutput())
