"""Dialects: the names that the gem uses before and after its renaming.

``sidekiq-workflow`` was renamed to ``sidekiq-sideline`` after 0.1.0, with its
keys; nothing else differs.  Payloads of either dialect are read.  A step
continues in its payload's dialect, regardless of the setting: its run began in
that dialect, and the worker of the next step must understand it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import ConfigurationError


@attrs.frozen
class Dialect:
    """The keys and classes of one version of the gem.

    Attributes:
      name: Value of ``WorkflowMiddleware(dialect=...)``.
      run_id_key, callbacks_key: Keys of a payload.
      noop_class: Class of a job that does nothing; it also carries steps for which Ruby has no class.
      memory_prefix: Default prefix of a run's memory in Redis.
    """

    name: str
    run_id_key: str
    callbacks_key: str
    noop_class: str
    memory_prefix: str


WORKFLOW = Dialect(
    "workflow",
    "workflow_run_id",
    "workflow_completion_callbacks",
    "Sidekiq::Workflow::NoopWorker",
    "swf:mem",
)
SIDELINE = Dialect(
    "sideline",
    "sideline_run_id",
    "sideline_completion_callbacks",
    "Sidekiq::Sideline::NoopWorker",
    "sl:mem",
)

DIALECTS = (WORKFLOW, SIDELINE)

#: The classes and keys of both dialects.
NOOP_CLASSES = frozenset(dialect.noop_class for dialect in DIALECTS)
_RUN_ID_KEYS = frozenset(dialect.run_id_key for dialect in DIALECTS)
_CALLBACKS_KEYS = frozenset(dialect.callbacks_key for dialect in DIALECTS)
KEYS = _RUN_ID_KEYS | _CALLBACKS_KEYS


def get(name: str) -> Dialect:
    """Get a dialect by its name.

    Raises:
      ConfigurationError: if no dialect has the name.
    """
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    known = " or ".join(repr(dialect.name) for dialect in DIALECTS)
    raise ConfigurationError(f"dialect must be {known}, not {name!r}.", name)


def detect(fields: Mapping[str, Any]) -> Dialect:
    """Detect the dialect of a payload; the default is :data:`WORKFLOW`."""
    for dialect in DIALECTS:
        if dialect.callbacks_key in fields or dialect.run_id_key in fields:
            return dialect
    return WORKFLOW
