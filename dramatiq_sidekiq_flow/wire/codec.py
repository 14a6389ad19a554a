"""JSON, exactly as Sidekiq reads and writes it.

Reading and writing is msgspec's.  Since msgspec turns bytes, datetimes and
integer keys into strings without a word, and NaN into null, :func:`check`
comes before anything that a caller hands in: it is Sidekiq's own strict
arguments rule (``job_util.rb``, ``json_unsafe?``).
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ..errors import InvalidArguments, MalformedPayload, cut, shortened

#: How deeply a payload may be nested: Ruby's JSON refuses more than 100
#: levels (``max_nesting``), so a deeper payload would never be read there.
MAX_DEPTH = 100

#: How large a payload may be when it is pushed, in bytes.  Redis itself refuses
#: values above ``proto-max-bulk-len``, 512 MB.
MAX_SIZE = 64 * 1024 * 1024

#: What a failure may add to a payload, in bytes: its error and its backtrace.
#: Workers read that much more than they let anyone push.
MARGIN = 1024 * 1024

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_CONTAINERS = (dict, list, tuple)
_SCALARS = frozenset((str, int, bool, type(None)))


def encode(value: Any) -> bytes:
    """Write a JSON value, without white space.

    Raises:
      InvalidArguments: for what JSON cannot carry exactly (lone surrogates,
        and whatever :func:`check` was not asked about).
    """
    try:
        return _encoder.encode(value)
    except (UnicodeEncodeError, OverflowError, TypeError, RecursionError, msgspec.MsgspecError) as e:
        raise InvalidArguments(
            f"This value cannot be written as JSON: {cut(e)}. Pass plain JSON values.", value
        ) from None


def encode_payload(fields: dict[str, Any]) -> bytes:
    """Write a payload that is to be pushed.

    Raises:
      InvalidArguments: if it is larger than what workers read, or as :func:`encode`.
    """
    raw = encode(fields)
    if len(raw) > MAX_SIZE:
        raise InvalidArguments(
            f"The job of {shortened(fields.get('class'))} has {len(raw)} bytes, more than the {MAX_SIZE} that a worker "
            "reads. Store the data elsewhere, and pass where it is.",
            fields.get("class"),
        )
    return raw


def decode(raw: bytes, *, limited: bool = True) -> dict[str, Any]:
    """Read one JSON object.  Integers of any size and floats stay exact.

    Parameters:
      limited: False reads an object of any size.

    Raises:
      MalformedPayload: with the raw bytes as its value.
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
    """Read any JSON value, as :func:`decode` reads objects."""
    try:
        return _decoder.decode(raw)
    except (RecursionError, msgspec.MsgspecError, UnicodeDecodeError, ValueError) as e:
        raise MalformedPayload(f"This is not JSON: {cut(e)}", raw) from None


def check(value: Any, path: str = "args", depth: int = MAX_DEPTH) -> None:
    """See that a value is made of JSON's own types only, at most ``depth`` deep.

    Tuples count as arrays.  Subclasses (enums, named tuples, numpy scalars)
    are refused, since the other side would read something else.

    Raises:
      InvalidArguments: naming the path, e.g. ``args[0].price``.
    """
    kind = type(value)
    if kind in _SCALARS:
        return
    if kind is float:
        if not math.isfinite(value):
            raise InvalidArguments(f"{path}: {value!r} does not exist in JSON. Send null or a string.", value)
    elif kind in _CONTAINERS:
        if depth <= 0:
            raise InvalidArguments(f"{path}: nested deeper than {MAX_DEPTH} levels, which Ruby's JSON refuses.", value)
        if kind is dict:
            for key, item in value.items():
                if type(key) is not str:
                    raise InvalidArguments(
                        f"{path}: the key {shortened(key)} is not a string. JSON has string keys only.", key
                    )
                if type(item) not in _SCALARS:
                    check(item, f"{path}.{key}", depth - 1)
        else:
            for index, item in enumerate(value):
                if type(item) not in _SCALARS:
                    check(item, f"{path}[{index}]", depth - 1)
    else:
        raise InvalidArguments(
            f"{path}: {shortened(value)} is a {kind.__name__}, which JSON does not have. "
            "Send strings, numbers, booleans, null, lists and dicts with string keys.",
            value,
        )


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {list: "array", str: "string", bool: "boolean"}.get(type(value), "number")
