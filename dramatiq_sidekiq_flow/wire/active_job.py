"""ActiveJob's wrapper around a job, and its arguments as Rails deserializes them.

Rails pushes an ActiveJob as a job of the adapter's class.  ``wrapped`` is the
ActiveJob's own class, and the only argument is what ActiveJob serialized,
whose ``arguments`` are the arguments of ``perform`` (``active_job/arguments.rb``
and ``active_job/serializers/``, Rails 6.0 to 8.1)::

    Ruby                        Python
    keywords                    keyword arguments
    Symbol, Class, Module       str, its name
    Date                        datetime.date
    Time, DateTime              datetime.datetime with an offset
    ActiveSupport::TimeWithZone datetime.datetime with its zone
    ActiveSupport::Duration     datetime.timedelta, unless it has months or years
    BigDecimal                  decimal.Decimal
    Range                       Range
    a record (GlobalID)         str, "gid://app/Model/1"
    any Hash                    dict with string keys

An object of any other serializer is refused; the error names the serializer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import attrs
import msgspec

from ..errors import InvalidPayload, PayloadError, UnsupportedPayload, shortened
from .codec import MAX_DEPTH

#: Marks the hash at the end of the arguments whose keys are keyword arguments.
_KEYWORDS = "_aj_ruby2_keywords"

#: Keys that ActiveJob adds to a hash, e.g. to name the keys that were symbols.
#: Not needed in Python, where all keys are strings.
_NOTES = frozenset(("_aj_symbol_keys", _KEYWORDS, "_aj_hash_with_indifferent_access"))

_GLOBAL_ID = "_aj_globalid"
_OBJECT = "_aj_serialized"

#: Parts of a Duration whose length does not depend on the calendar.
_EXACT_PARTS = frozenset(("weeks", "days", "hours", "minutes", "seconds"))

_AwareDatetime = Annotated[datetime, msgspec.Meta(tz=True)]


@attrs.frozen
class Range:
    """A Ruby Range: ``1..5``, ``1...5`` (without its end) or ``1..`` (without an end).

    Attributes:
      begin, end: The bounds; None if the range is open there.
      exclude_end: True if the range excludes its end (three dots).
    """

    begin: Any
    end: Any
    exclude_end: bool = False

    def __contains__(self, value: Any) -> bool:
        """Return True if a value lies within the bounds, as Ruby's ``cover?`` does."""
        if self.begin is not None and value < self.begin:
            return False
        if self.end is None:
            return True
        return bool(value < self.end if self.exclude_end else value <= self.end)


def unwrap(fields: Mapping[str, Any], raw: bytes) -> tuple[str, list[Any], dict[str, Any]]:
    """Read the actor's name, its arguments, and its keyword arguments.

    Parameters:
      fields: A payload whose class is one of ``payload_fields.WRAPPERS``.
      raw: Its bytes, for errors.

    Raises:
      InvalidPayload: if the job is not in ActiveJob's format.
      UnsupportedPayload: if an argument exists in Ruby only.
    """
    job = _serialized(fields, raw)
    name = fields.get("wrapped") or job.get("job_class")
    arguments = job.get("arguments")
    if type(name) is not str or not name or type(arguments) is not list:
        raise InvalidPayload("The ActiveJob has no class, or no array of arguments.", raw)
    values = [_value(value, f"arguments[{index}]", raw) for index, value in enumerate(arguments)]
    keywords: dict[str, Any] = values.pop() if _ends_with_keywords(arguments) else {}
    return name, values, keywords


def _ends_with_keywords(arguments: list[Any]) -> bool:
    """Return True if the last of the serialized arguments is the hash of the keyword arguments."""
    if not arguments or type(arguments[-1]) is not dict:
        return False
    return _KEYWORDS in arguments[-1]


def _serialized(fields: Mapping[str, Any], raw: bytes) -> dict[str, Any]:
    """Return the job as ActiveJob serialized it, which is the only argument."""
    args = fields.get("args")
    if type(args) is list and len(args) == 1 and type(args[0]) is dict:
        return args[0]
    raise InvalidPayload(f"The job's args must be one serialized ActiveJob, since its class is {fields['class']}.", raw)


def decode_context(context: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the context of a job (tenant, locale, trace) for an actor.

    The attributes of Rails' CurrentAttributes, under ``cattr``, ``cattr_1`` and
    so on, become a dict whose values are decoded as arguments (:func:`unwrap`):
    Sidekiq 7 writes them as an object, Sidekiq 8 as ActiveJob serializes them.
    Other keys, and values that cannot be decoded, stay as they are in the payload.
    """
    return {key: _attributes(value) if _is_attributes(key) else value for key, value in context.items()}


def _is_attributes(key: str) -> bool:
    return key == "cattr" or key.startswith("cattr_")


def _attributes(stored: Any) -> Any:
    """Decode attributes in the format of Sidekiq 7 or 8; return any other value unchanged."""
    pairs = list(stored.items()) if type(stored) is dict else stored
    if type(pairs) is not list or not all(map(_is_pair, pairs)):
        return stored
    decoded: dict[str, Any] = {}
    for key, value in pairs:
        name = _decoded(key)
        if type(name) is not str:
            return stored
        if name not in _NOTES:
            decoded[name] = _decoded(value)
    return decoded


def _is_pair(value: Any) -> bool:
    return type(value) in (list, tuple) and len(value) == 2


def _decoded(value: Any) -> Any:
    try:
        return _value(value, "cattr", b"")
    except PayloadError:
        return value


def _value(value: Any, path: str, raw: bytes, depth: int = MAX_DEPTH) -> Any:
    kind = type(value)
    if kind is not list and kind is not dict:
        return value
    if depth <= 0:
        raise InvalidPayload(f"The ActiveJob's arguments are nested deeper than {MAX_DEPTH} levels.", raw)
    if kind is list:
        return [_value(item, f"{path}[{index}]", raw, depth - 1) for index, item in enumerate(value)]
    return _hash(value, path, raw, depth)


def _hash(value: dict[str, Any], path: str, raw: bytes, depth: int) -> Any:
    """Decode a hash, or the object or record that it stands for."""
    if _OBJECT in value:
        return _object(value, path, raw, depth)
    if len(value) == 1 and _GLOBAL_ID in value:
        return value[_GLOBAL_ID]
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if key not in _NOTES:
            plain[key] = _value(item, f"{path}.{key}", raw, depth - 1)
    return plain


def _object(value: dict[str, Any], path: str, raw: bytes, depth: int) -> Any:
    serializer = value[_OBJECT]
    read = _SERIALIZERS.get(serializer) if type(serializer) is str else None
    if read is None:
        raise UnsupportedPayload(
            f"The ActiveJob's {path:.200} is an object of {shortened(serializer)}, which only Ruby can read. "
            "Pass strings, numbers, booleans, nil, arrays and hashes instead.",
            raw,
        )
    try:
        return read({key: _value(item, f"{path}.{key}", raw, depth - 1) for key, item in value.items()})
    except _NotExact as e:
        raise UnsupportedPayload(f"The ActiveJob's {path:.200} is {e}", raw) from None
    except (ArithmeticError, KeyError, TypeError, ValueError, msgspec.MsgspecError):
        raise InvalidPayload(f"The ActiveJob's {path:.200} is not in the format of {serializer}.", raw) from None


class _NotExact(Exception):
    """A value that Python cannot represent exactly; the text names the value and a replacement."""


def _name(value: dict[str, Any]) -> str:
    if type(value["value"]) is not str:
        raise TypeError
    return value["value"]


def _date(value: dict[str, Any]) -> date:
    return msgspec.convert(value["value"], date)


def _time(value: dict[str, Any]) -> datetime:
    return msgspec.convert(value["value"], _AwareDatetime)


def _time_with_zone(value: dict[str, Any]) -> datetime:
    moment = _time(value)
    name = value.get("time_zone")
    if type(name) is not str:  # Rails 6
        return moment
    try:
        return moment.astimezone(ZoneInfo(name))
    except (KeyError, ValueError, OSError, OverflowError):
        # This machine has no data for the zone: keep the moment with its original offset.
        return moment


def _duration(value: dict[str, Any]) -> timedelta:
    parts = value["parts"]
    if type(parts) is list:
        parts = dict(parts)
    if type(parts) is not dict:
        raise TypeError
    unknown = sorted(parts.keys() - _EXACT_PARTS)
    if unknown:
        raise _NotExact(
            f"a Duration with {' and '.join(map(shortened, unknown))}, whose length depends on the calendar. "
            "Pass weeks, days, hours, minutes or seconds, or a date."
        )
    return timedelta(**{unit: _number(length) for unit, length in parts.items()})


def _number(value: Any) -> int | float:
    if type(value) is Decimal:
        return float(value)
    if type(value) is int or type(value) is float:
        return value
    raise TypeError


def _decimal(value: dict[str, Any]) -> Decimal:
    return Decimal(_name(value))


def _range(value: dict[str, Any]) -> Range:
    if type(value["exclude_end"]) is not bool:
        raise TypeError
    return Range(value["begin"], value["end"], value["exclude_end"])


_SERIALIZERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    f"ActiveJob::Serializers::{name}Serializer": read
    for name, read in {
        "Symbol": _name,
        "Module": _name,
        "Date": _date,
        "Time": _time,
        "DateTime": _time,
        "TimeWithZone": _time_with_zone,
        "Duration": _duration,
        "BigDecimal": _decimal,
        "Range": _range,
    }.items()
}
