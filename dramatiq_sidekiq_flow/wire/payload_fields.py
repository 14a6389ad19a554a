"""Single fields of a payload: classes, time stamps, retry counts and limits.

A field may have any value that another program wrote; values out of range are
read as the nearest bound, or as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import PayloadError
from . import codec

#: The classes of a job that wraps an ActiveJob: of Rails' own adapter, and of the adapter that Sidekiq 8 includes.
WRAPPERS = frozenset(("ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper", "Sidekiq::ActiveJob::Wrapper"))

#: The last second of the year 9999.  A time stamp after it, or before 1970, is damaged.
MAX_STAMP = 253_402_300_799

#: A larger ``retry_count`` is read as this one, so that Redis accepts the
#: delay, ``count ** 4``, as a score.
MAX_RETRY_COUNT = 1_000_000

#: Sidekiq refuses a larger ``retry_for`` (``job_util.rb``, ``validate``).  In seconds.
MAX_RETRY_FOR = 1_000_000_000


#: The option of a step that holds its number in the tree of its run, depth first, from 1.
STEP_KEY = "swf_step"

#: The option of a step that says what happens if it fails for good: :data:`COUNTS_AS_DONE`, or
#: the tree that runs in its place, in wire form.
DEATH_KEY = "swf_on_death"

#: The option of a carrier that holds a group which needs some of its members, in wire form (``wire.need``).
GROUP_KEY = "swf_group"

#: The value of :data:`DEATH_KEY` of a step that counts as done if it fails for good.
COUNTS_AS_DONE = "done"

#: The run id of a dead step whose place in its run was taken; its job belongs to the run no more.
DIED_IN_KEY = "swf_died_in"

#: The fields that such a job had in its run, by name: its callback stack, its policy, its number.
DIED_AS_KEY = "swf_died_as"

#: The option of a job that a run calls, ``failure`` or ``complete``: it is not a step of the run, whose id it has.
CALLBACK_KEY = "swf_callback"

#: Maximum number of a step: a record holds one bit for each.
MAX_STEPS = 10_000_000


def step_number(fields: Mapping[str, Any]) -> int | None:
    """Read the number of a step; None if it has none."""
    number = fields.get(STEP_KEY)
    return number if type(number) is int and 0 < number <= MAX_STEPS else None


def is_callback(fields: Mapping[str, Any]) -> bool:
    """Return True if a job is a callback of its run, and not a step."""
    return CALLBACK_KEY in fields


def seconds(stamp: Any) -> float | None:
    """Convert a time stamp of any Sidekiq version to epoch seconds.

    7.x writes float seconds, 8.x integer milliseconds; either may be text.
    Returns None for any other value, and for a time outside 1970 to 9999.
    """
    if type(stamp) is str:
        stamp = _number(stamp)
    if type(stamp) is int:
        return stamp / 1000 if 0 <= stamp <= MAX_STAMP * 1000 else None
    if type(stamp) is float and 0 <= stamp <= MAX_STAMP:
        return stamp
    return None


def _number(text: str) -> int | float | None:
    if len(text) > 40:
        return None
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return None


def retry_count(fields: Mapping[str, Any]) -> int | None:
    """Read ``retry_count`` of a job; None before its first failure, or if it is not an integer.

    It is -1 if an operator retried a job after its first failure.  A value
    outside -1 to :data:`MAX_RETRY_COUNT` is read as the nearer bound.
    """
    count = fields.get("retry_count")
    if type(count) is not int:
        return None
    return min(max(count, -1), MAX_RETRY_COUNT)


def retry_for(fields: Mapping[str, Any]) -> float | None:
    """Read ``retry_for`` of a job: seconds of retries after the first failure; None if ``retry`` decides."""
    limit = fields.get("retry_for")
    if type(limit) is not int and type(limit) is not float:
        return None
    return float(min(max(limit, -1), MAX_RETRY_FOR))


def expiry(fields: Mapping[str, Any]) -> float | None:
    """Read ``expiry`` of a job (Sidekiq Pro): epoch seconds after which it must not run; None if it never expires.

    An integer is in seconds, or in milliseconds if as seconds it would be after the year 9999.
    """
    limit = fields.get("expiry")
    if type(limit) is int and abs(limit) <= MAX_STAMP:
        return float(limit)
    return seconds(limit)


def queue_of(raw: bytes) -> Any:
    """Read the ``queue`` of a payload; None if the payload cannot be read."""
    try:
        return codec.decode(raw).get("queue")
    except PayloadError:
        return None
