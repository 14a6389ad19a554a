"""The options of a Dramatiq message that a payload may set.

They travel under one key of the payload (``dramatiq``), and Dramatiq trusts
them: a ``throws`` that is not a class ends the worker's thread, an ``eta``
that has passed runs the next step before this one.  So options that Dramatiq
itself reads are checked by name and type, and those that it sets while a
message is processed are never read from a payload.  Unknown options belong to
other middleware, and are passed on unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dramatiq.logging import get_logger

from ..wire.tree_schema import MAX_DELAY, MAX_NAME

_logger = get_logger(__name__)

#: Options that have been warned of; only names of :data:`_KNOWN` are added.
_warned: set[str] = set()

#: How many messages may be chained by ``pipe_target``.
_MAX_PIPE = 100


def read(stored: Any, depth: int = _MAX_PIPE) -> dict[str, Any]:
    """Read the message options of a payload; drop those that Dramatiq could not use.

    Parameters:
      stored: Any JSON value; None for no options.
    """
    if stored is None:
        return {}
    if type(stored) is not dict:
        _warn("dramatiq", "must be an object of message options")
        return {}
    options: dict[str, Any] = {}
    for name, value in stored.items():
        if name in _MESSAGES:
            checked = _checked(name, value, depth - 1)
            if checked is not None:
                options[name] = checked
        elif _may_keep(name, value):
            options[name] = value
    return options


def _checked(name: str, value: Any, depth: int) -> Any:
    """The value of an option that holds messages; warns of one that does not, and gives None."""
    checked = _MESSAGES[name](value, depth)
    if checked is None and value is not None:
        _warn(name, "is not a message as Dramatiq writes it")
    return checked


def _may_keep(name: str, value: Any) -> bool:
    """Return True if Dramatiq can use an option; warns of one that it cannot."""
    if name in NEVER:
        _warn(name, "is never read from a payload")
        return False
    if name not in _KNOWN or _KNOWN[name](value):
        return True
    if value is not None:
        _warn(name, "has the wrong type")
    return False


def _warn(name: str, what: str) -> None:
    if name not in _warned:
        _warned.add(name)
        _logger.warning("The message option %r of a job %s, so it is ignored, here and in other jobs.", name, what)


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_text(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= MAX_NAME


def _is_milliseconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= MAX_DELAY


def _is_positive(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_DELAY


def _is_integer(value: Any) -> bool:
    return type(value) is int and abs(value) <= MAX_DELAY


#: Options that Dramatiq's own middleware reads, and what each must be.
_KNOWN: Mapping[str, Callable[[Any], bool]] = {
    "on_success": _is_text,
    "on_failure": _is_text,
    "on_retry_exhausted": _is_text,
    "pipe_ignore": _is_flag,
    "delay": _is_milliseconds,
    "time_limit": _is_milliseconds,
    "max_age": _is_milliseconds,
    "min_backoff": _is_milliseconds,
    "max_backoff": _is_milliseconds,
    "notify_shutdown": _is_flag,
    "store_results": _is_flag,
    "result_ttl": _is_positive,
    "group_completion_uuid": _is_text,
    "broker_priority": _is_integer,
}

#: Options that Dramatiq sets while it processes a message, and those that only code may set.
NEVER = frozenset(
    ("throws", "eta", "retries", "traceback", "requeue_timestamp", "retry_when", "max_retries", "redis_message_id")
)


def _message(value: Any, depth: int) -> dict[str, Any] | None:
    """A message as ``Message.asdict`` writes it, with its own options read; None for anything else."""
    if depth <= 0 or type(value) is not dict or not _is_message(value):
        return None
    return {**value, "options": read(value["options"], depth)}


def _is_message(value: dict[str, Any]) -> bool:
    """Return True if an object has the keys of a message, each with a value of its type, and no others."""
    if value.keys() != _MESSAGE_KEYS.keys():
        return False
    return all(is_valid(value[name]) for name, is_valid in _MESSAGE_KEYS.items())


def _messages(value: Any, depth: int) -> list[dict[str, Any]] | None:
    if type(value) is not list:
        return None
    messages = [_message(item, depth) for item in value]
    return None if None in messages else messages  # type: ignore[return-value]


_MESSAGE_KEYS: Mapping[str, Callable[[Any], bool]] = {
    "queue_name": _is_text,
    "actor_name": _is_text,
    "args": lambda value: type(value) is list,
    "kwargs": lambda value: type(value) is dict,
    "options": lambda value: type(value) is dict,
    "message_id": _is_text,
    "message_timestamp": lambda value: type(value) in (int, float) and 0 <= value <= MAX_DELAY,
}

#: Options that hold messages, which Dramatiq sends afterwards.
_MESSAGES: Mapping[str, Callable[[Any, int], Any]] = {
    "pipe_target": _message,
    "group_completion_callbacks": _messages,
}
