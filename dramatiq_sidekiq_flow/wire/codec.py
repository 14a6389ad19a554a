"""JSON, exactly as Sidekiq reads and writes it.

msgspec reads and writes it.  Since msgspec silently turns bytes, datetimes and
integer keys into strings, and NaN into null, :func:`check` first refuses such
values of callers, as Sidekiq's strict arguments do (``job_util.rb``,
``json_unsafe?``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from ..errors import InvalidArguments, MalformedPayload, cut, shortened

#: Maximum nesting of a payload, in levels: Ruby's JSON refuses more than 100
#: (``max_nesting``), so Ruby could not read a deeper payload.
MAX_DEPTH = 100

#: Largest payload that is pushed, in bytes.  Redis itself refuses values above
#: ``proto-max-bulk-len``, 512 MB.
MAX_SIZE = 64 * 1024 * 1024

#: Bytes that a failure may add to a payload: its error and its backtrace.
#: Workers read payloads that are larger than :data:`MAX_SIZE` by this much.
MARGIN = 1024 * 1024

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_SCALARS = frozenset((str, int, bool, type(None)))

#: Errors of msgspec for values that JSON cannot carry.
_CANNOT_ENCODE = (UnicodeEncodeError, OverflowError, TypeError, RecursionError, msgspec.MsgspecError)


def encode(value: Any) -> bytes:
    """Write a JSON value, without white space.

    Raises:
      InvalidArguments: if JSON cannot carry the value exactly (a lone surrogate,
        or a type that :func:`check` refuses).
    """
    try:
        return _encoder.encode(value)
    except _CANNOT_ENCODE as e:
        raise _not_encodable(e, value) from None


def encode_lines(values: Sequence[Any]) -> bytes:
    """Write JSON values, each on a line of its own.

    Raises:
      InvalidArguments: as :func:`encode`.
    """
    try:
        return _encoder.encode_lines(values)
    except _CANNOT_ENCODE as e:
        raise _not_encodable(e, values) from None


def encode_payload(fields: dict[str, Any]) -> bytes:
    """Write a payload for a push.

    Raises:
      InvalidArguments: if the payload is larger than :data:`MAX_SIZE`, or if JSON
        cannot carry a value exactly.
    """
    raw = encode(fields)
    check_size(len(raw), fields.get("class"))
    return raw


def check_size(size: int, name: Any) -> None:
    """Check that a payload is not larger than :data:`MAX_SIZE`.

    Parameters:
      size: Its bytes.
      name: Its class.

    Raises:
      InvalidArguments: if it is.
    """
    if size > MAX_SIZE:
        raise InvalidArguments(
            f"The job of {shortened(name)} has {size} bytes, more than the {MAX_SIZE} that a worker reads. Store the "
            "data elsewhere, and pass its location.",
            name,
        )


def decode(raw: bytes, *, limited: bool = True) -> dict[str, Any]:
    """Read one JSON object.  Integers of any size and floats stay exact.

    Parameters:
      limited: False reads an object of any size.

    Raises:
      MalformedPayload: if it is not a JSON object; its value is the raw bytes.
    """
    if limited and len(raw) > MAX_SIZE + MARGIN:
        raise MalformedPayload(
            f"The payload has {len(raw)} bytes, more than the {MAX_SIZE + MARGIN} that are read.", raw
        )
    try:
        value = _decoder.decode(raw)
    except RecursionError:
        raise MalformedPayload("The payload is nested too deeply to be read.", raw) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as e:
        raise MalformedPayload(f"The payload is not JSON: {cut(e)}", raw) from None
    if type(value) is not dict:
        raise MalformedPayload(f"The payload is a JSON {_kind(value)}, not an object.", raw)
    return value


def decode_value(raw: bytes) -> Any:
    """Read any JSON value.

    Raises:
      MalformedPayload: if it is not JSON.
    """
    try:
        return _decoder.decode(raw)
    except (RecursionError, msgspec.MsgspecError, UnicodeDecodeError, ValueError) as e:
        raise MalformedPayload(f"This is not JSON: {cut(e)}", raw) from None


def check(value: Any, path: str = "args", depth: int = MAX_DEPTH) -> None:
    """Check that a value consists of JSON's own types only, at most ``depth`` levels deep.

    Tuples count as arrays.  Subclasses (enums, named tuples, numpy scalars)
    are refused, since the reader would get another type.

    Raises:
      InvalidArguments: if it does not; the message names the path, e.g. ``args[0].price``.
    """
    kind = type(value)
    if kind not in _SCALARS:
        _CHECKS.get(kind, _refuse)(value, path, depth)


def check_arrays(arrays: Sequence[Sequence[Any]]) -> None:
    """Check arrays as :func:`check` does, faster if they hold scalars only.

    Raises:
      InvalidArguments: if one does not consist of JSON's own types.
    """
    if not _SCALARS.issuperset(map(type, chain.from_iterable(arrays))):
        for array in arrays:
            check(array)


def _not_encodable(error: Exception, value: Any) -> InvalidArguments:
    return InvalidArguments(f"This value cannot be written as JSON: {cut(error)}. Pass plain JSON values.", value)


def _check_object(value: dict[Any, Any], path: str, depth: int) -> None:
    if depth <= 0:
        raise _too_deep(value, path)
    for key, item in value.items():
        if type(key) is not str:
            raise InvalidArguments(f"{path}: the key {shortened(key)} is not a string. JSON has string keys only.", key)
        kind = type(item)
        if kind not in _SCALARS:
            _CHECKS.get(kind, _refuse)(item, f"{path}.{key}", depth - 1)


def _check_array(value: Sequence[Any], path: str, depth: int) -> None:
    if depth <= 0:
        raise _too_deep(value, path)
    for index, item in enumerate(value):
        kind = type(item)
        if kind not in _SCALARS:
            _CHECKS.get(kind, _refuse)(item, f"{path}[{index}]", depth - 1)


def _check_float(value: float, path: str, depth: int) -> None:
    if not math.isfinite(value):
        raise InvalidArguments(f"{path}: {value!r} does not exist in JSON. Send null or a string.", value)


def _refuse(value: Any, path: str, depth: int) -> None:
    raise InvalidArguments(
        f"{path}: {shortened(value)} is a {type(value).__name__}, which JSON does not have. "
        "Send strings, numbers, booleans, null, lists and dicts with string keys.",
        value,
    )


def _too_deep(value: Any, path: str) -> InvalidArguments:
    return InvalidArguments(f"{path}: nested deeper than {MAX_DEPTH} levels, which Ruby's JSON refuses.", value)


_CHECKS: Mapping[type, Callable[[Any, str, int], None]] = {
    dict: _check_object,
    list: _check_array,
    tuple: _check_array,
    float: _check_float,
}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {list: "array", str: "string", bool: "boolean"}.get(type(value), "number")
