"""Rules for the options of a job, those of Sidekiq (``job_util.rb``, ``validate``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from ..errors import InvalidOptions
from . import codec
from .dialect import KEYS
from .payload_fields import CALLBACK_KEY, DEATH_KEY, DIED_IN_KEY, MAX_RETRY_FOR, STEP_KEY

#: Keys of steps that the library writes.
_STEP_KEYS = (STEP_KEY, DEATH_KEY, DIED_IN_KEY, CALLBACK_KEY)

#: Keys that the library or the push writes; never options of a class.
RESERVED = frozenset(("__type__", "class", "args", "jid", "at", "enqueued_at", *_STEP_KEYS)) | KEYS

#: The same without ``jid``, which may be set for one job.
_RESERVED_OF_JOB = RESERVED - {"jid"}


@attrs.frozen
class _Rule:
    """The values that one option accepts.

    Attributes:
      accepts: Function that returns True for such a value.
      expected: Description of these values, for the error.
    """

    accepts: Callable[[Any], bool]
    expected: str


def _is_queue(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_jid(value: Any) -> bool:
    return type(value) is str and value != ""


def _is_retry(value: Any) -> bool:
    return isinstance(value, (bool, int))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_retry_for(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, (int, float)) and not value > MAX_RETRY_FOR


_RULES: Mapping[str, _Rule] = {
    "jid": _Rule(_is_jid, "text, such as a message's id"),
    "queue": _Rule(_is_queue, "the name of a queue"),
    "retry": _Rule(_is_retry, "true, false or a number of tries"),
    "retry_for": _Rule(_is_retry_for, "a number of seconds"),
    "retry_queue": _Rule(_is_queue, "the name of a queue"),
    "tags": _Rule(_is_list, "a list of strings"),
}


def check_options(options: Mapping[str, Any], *, of_job: bool = False) -> None:
    """Check the values of job options.

    Parameters:
      of_job: True for the options of one job, which may have a ``jid``; False for those of a class.

    Raises:
      InvalidOptions: if Sidekiq would refuse an option, or if only the library
        may write it; the message names it.
      InvalidArguments: if JSON cannot carry a value exactly.
    """
    reserved = _RESERVED_OF_JOB if of_job else RESERVED
    for name, value in options.items():
        if name in reserved:
            raise InvalidOptions(f"{name!r} is not an option of a job; it is written by the library.", value)
        rule = _RULES.get(name)
        if rule is not None and not rule.accepts(value):
            raise InvalidOptions(f"{name} must be {rule.expected}, not {value!r}.", value)
        if name == "memory_namespace":
            check_namespace(value)
        codec.check(value, name)


def check_namespace(name: Any) -> None:
    """Check the name of a namespace of a run's memory.

    Raises:
      InvalidOptions: if it is neither a name nor names joined by dots.
    """
    if not isinstance(name, str) or not all(name.split(".")):
        raise InvalidOptions(f"A namespace of the memory is named like 'left' or 'left.inner', not {name!r}.", name)
