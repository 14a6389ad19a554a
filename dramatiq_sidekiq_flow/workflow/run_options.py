"""RunOptions: what a workflow does besides its tree: callbacks, deadline, unique key, repetition."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import dramatiq

from ..errors import ConfigurationError, InvalidOptions, InvalidWorkflow
from ..wire.nodes import Chain, Job
from ..wire.tree_schema import MAX_NAME

#: What may be called: a job, or an actor that takes nothing else than the mapping.
Call = Job | dramatiq.Message[Any] | dramatiq.Actor[..., Any]

#: The options that name one job to call.
CALLS = ("on_failure", "on_complete")


def _check_call(instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and not isinstance(value, (Job, dramatiq.Message)):
        raise InvalidWorkflow(
            f"{attribute.name} takes one job: {attribute.name}=Job(...), actor.message(...), or an actor, not "
            f"{value!r:.100}.",
            value,
        )


def _call_of(value: Any) -> Any:
    """Make the message of an actor that is to be called with the mapping alone."""
    return value.message() if isinstance(value, dramatiq.Actor) else value


def _check_deadline(instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and not _is_ahead(value):
        raise InvalidOptions(
            f"deadline takes a time after the start: milliseconds above 0, or a timedelta, not {value!r:.50}.", value
        )


def _is_ahead(value: Any) -> bool:
    milliseconds = value / timedelta(milliseconds=1) if isinstance(value, timedelta) else value
    return type(value) in (int, timedelta) and milliseconds > 0


def _check_key(instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= MAX_NAME):
        raise InvalidOptions(f"unique_key takes a name of at most {MAX_NAME} characters, not {value!r:.50}.", value)


@attrs.frozen
class RunOptions:
    """Options of the runs of a workflow; Workflow documents them.

    Raises:
      InvalidWorkflow, InvalidOptions: if one has an invalid value.
    """

    on_success: Any = None
    on_failure: Any = attrs.field(default=None, converter=_call_of, validator=_check_call)
    on_complete: Any = attrs.field(default=None, converter=_call_of, validator=_check_call)
    deadline: int | timedelta | None = attrs.field(default=None, validator=_check_deadline)
    unique_key: str | None = attrs.field(default=None, validator=_check_key)
    repeatable: bool = False

    @property
    def calls(self) -> dict[str, Any]:
        """The jobs to call, by option."""
        return self._set(*CALLS)

    def _set(self, *names: str) -> dict[str, Any]:
        """Those of some options that are set."""
        return {name: value for name, value in self.given.items() if name in names and value is not None}

    @property
    def given(self) -> dict[str, Any]:
        """All options by name."""
        return attrs.asdict(self, recurse=False)

    @property
    def seconds(self) -> float | None:
        """Seconds from the start to the deadline; None without."""
        if self.deadline is None or isinstance(self.deadline, int):
            return self.deadline and self.deadline / 1000
        return self.deadline.total_seconds()

    def tree(self, node: Any) -> Any:
        """Make the whole tree of a run."""
        return node if self.on_success is None else Chain(node, self.on_success)

    def check_records(self, enabled: bool) -> None:
        """Check that runs have the records that these options need.

        Raises:
          ConfigurationError: if not.
        """
        needing = [*self._set(*CALLS, "deadline", "unique_key"), *(["repeatable"] if self.repeatable else [])]
        if needing and not enabled:
            raise ConfigurationError(
                f"{needing[0]} needs the records of runs: remove records=False from the WorkflowMiddleware, or leave "
                f"out {', '.join(needing)}.",
                needing,
            )
