"""The shape of a tree in wire form, checked by msgspec in C for each step that arrives.

Other keys (a job's options) are let through; nothing is built from these.
"""

from __future__ import annotations

from typing import Annotated, Any, Union

import msgspec

#: The longest delay, in milliseconds: 31,000 years.  Larger numbers are beyond
#: what floats and Redis count.
MAX_DELAY = 10**15


class _JobShape(msgspec.Struct, tag_field="__type__", tag="job"):
    job_class: str = msgspec.field(name="class")
    args: list[Any]


class _ChainShape(msgspec.Struct, tag_field="__type__", tag="chain"):
    children: list[Union[_JobShape, _ChainShape, _GroupShape, _DelayShape]]


class _GroupShape(msgspec.Struct, tag_field="__type__", tag="group"):
    children: list[Union[_JobShape, _ChainShape, _GroupShape, _DelayShape]]


class _DelayShape(msgspec.Struct, tag_field="__type__", tag="with_delay"):
    delay: Union[Annotated[int, msgspec.Meta(le=MAX_DELAY)], Annotated[float, msgspec.Meta(le=MAX_DELAY)]]
    task: Union[_JobShape, _ChainShape, _GroupShape, _DelayShape]


class _ReferenceShape(msgspec.Struct, tag_field="__type__", tag="reference"):
    chain: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    sha: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    at: Annotated[int, msgspec.Meta(ge=0)]
    delay: Union[int, float] = 0


Shape = Union[_JobShape, _ChainShape, _GroupShape, _DelayShape]

#: What may stand in a callback: a tree, or a reference to a stored one (``wire.references``).
Remaining = Union[_JobShape, _ChainShape, _GroupShape, _DelayShape, _ReferenceShape]
