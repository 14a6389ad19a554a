"""The gem's two names.

``sidekiq-workflow`` became ``sidekiq-sideline`` after 0.1.0, and its keys with
it; nothing else differs.  What is read may speak either.  A step goes on in
the dialect that it came in, whatever the setting: its run began there, and
whoever takes the next step must understand it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import ConfigurationError


@attrs.frozen
class Dialect:
    """What the gem calls things.

    Attributes:
      name: As in ``WorkflowMiddleware(dialect=...)``.
      run_id_key, callbacks_key: Keys of a payload.
      noop_class: Does nothing; also carries steps that Ruby has no class for.
      memory_prefix: Of a run's memory in Redis, unless one was given.
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

#: Of either dialect.
NOOP_CLASSES = frozenset(dialect.noop_class for dialect in DIALECTS)
KEYS = frozenset(key for dialect in DIALECTS for key in (dialect.run_id_key, dialect.callbacks_key))


def get(name: str) -> Dialect:
    """The dialect of a name.

    Raises:
      ConfigurationError: for a name that is none.
    """
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    known = " or ".join(repr(dialect.name) for dialect in DIALECTS)
    raise ConfigurationError(f"dialect must be {known}, not {name!r}.", name)


def detect(fields: Mapping[str, Any]) -> Dialect:
    """The dialect of a payload; the first where none can be told."""
    for dialect in DIALECTS:
        if dialect.callbacks_key in fields or dialect.run_id_key in fields:
            return dialect
    return WORKFLOW
