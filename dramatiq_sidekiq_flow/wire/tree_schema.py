"""msgspec schema of a tree in wire form; each step that arrives is checked against it, in C.

The queue, the start time and the retries of a job are checked before the step
in front of it runs: an error found after that step would leave its work done
and the run stuck.  Other keys are not checked, since nothing is built from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Optional, Union

import msgspec

#: The longest delay, in milliseconds: 31,000 years.  Floats and Redis cannot
#: count larger numbers exactly.
MAX_DELAY = 10**15

#: Longest name of a class, an actor or a queue, in characters.
MAX_NAME = 255

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
# Not "$", which also matches before a line break.
_Sha = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_InMilliseconds = msgspec.Meta(ge=-MAX_DELAY, le=MAX_DELAY)
_InSeconds = msgspec.Meta(ge=-MAX_DELAY // 1000, le=MAX_DELAY // 1000)
_Milliseconds = Union[Annotated[int, _InMilliseconds], Annotated[float, _InMilliseconds]]
_Seconds = Union[Annotated[int, _InSeconds], Annotated[float, _InSeconds]]


class _JobShape(msgspec.Struct, tag_field="__type__", tag="job"):
    # As Sidekiq's client checks them when it pushes (``job_util.rb``): a key
    # that is present with null counts as given, so a queue or an ``at`` of null
    # is refused; ``retry``, ``tags`` and ``jid`` may be null there, too.
    job_class: _Name = msgspec.field(name="class")
    args: list[Any]
    queue: Union[_Name, msgspec.UnsetType] = msgspec.UNSET
    at: Union[_Seconds, msgspec.UnsetType] = msgspec.UNSET
    jid: Optional[_Name] = None
    retry: Union[bool, int, None] = None
    retry_queue: Optional[_Name] = None
    retry_for: Optional[_Seconds] = None
    tags: Optional[list[Any]] = None
    wrapped: Optional[_Name] = None
    memory_namespace: Optional[str] = None
    swf_on_death: Union[Literal["done"], _JobShape, _ChainShape, _GroupShape, _DelayShape, None] = None
    swf_group: Union[_GroupShape, msgspec.UnsetType] = msgspec.UNSET


class _ChainShape(msgspec.Struct, tag_field="__type__", tag="chain"):
    children: list[Union[_JobShape, _ChainShape, _GroupShape, _DelayShape]]


class _GroupShape(msgspec.Struct, tag_field="__type__", tag="group"):
    children: list[Union[_JobShape, _ChainShape, _GroupShape, _DelayShape]]


class _DelayShape(msgspec.Struct, tag_field="__type__", tag="with_delay"):
    delay: _Milliseconds
    task: Union[_JobShape, _ChainShape, _GroupShape, _DelayShape]


class _ReferenceShape(msgspec.Struct, tag_field="__type__", tag="reference"):
    chain: _Sha
    sha: _Sha
    at: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    delay: _Milliseconds = 0


#: Maximum entries of a callback stack.  One entry is a chain or group around the step,
#: and Ruby's JSON allows fewer than 50 of these inside each other.  One script
#: call reads the barriers of all entries, and blocks Redis while it does.
MAX_ENTRIES = 1000

_Shape = Union[_JobShape, _ChainShape, _GroupShape, _DelayShape]

#: The remaining part of a callback: a tree, or a reference to a stored one (``wire.references``).
_Remaining = Union[_JobShape, _ChainShape, _GroupShape, _DelayShape, _ReferenceShape]


# msgspec prepares the schema of a class once, and that of any other type in each call.
class _Tree(msgspec.Struct):
    value: _Shape


class _Stack(msgspec.Struct):
    value: Annotated[list[tuple[str, Optional[_Remaining], bool]], msgspec.Meta(max_length=MAX_ENTRIES)]


def tree_error(value: Any) -> str | None:
    """Check a tree in wire form; return the error, with its path, or None."""
    return _error(value, _Tree)


def are_ids(values: Sequence[Any]) -> bool:
    """Return True if each value may be the ``jid`` of a job in a tree."""
    return {str}.issuperset(map(type, values)) and all(values) and max(map(len, values), default=0) <= MAX_NAME


def stack_error(value: Any) -> str | None:
    """Check a callback stack in wire form; return the error, with its path, or None."""
    return _error(value, _Stack)


def _error(value: Any, schema: type[msgspec.Struct]) -> str | None:
    try:
        msgspec.convert({"value": value}, schema)
    except (msgspec.ValidationError, RecursionError) as e:
        return str(e).replace(" - at `$.value`", "").replace("$.value", "$", 1)
    return None


# msgspec prepares a schema at its first use, and crashes if two threads are the first.
for _schema in (_Tree, _Stack):
    _error(None, _schema)
