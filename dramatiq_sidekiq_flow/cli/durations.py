"""Durations and times as arguments: ``90``, ``30s``, ``5m``, ``2h``, ``7d``; ``2026-11-26`` or ``2026-11-26T14:00``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import click

_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: A longer one is a mistake, and a time before it may not exist.
_LONGEST = timedelta(days=36_500)
_DURATION = re.compile(r"(\d{1,8}(?:\.\d{1,3})?)([smhd]?)")


def duration(text: str) -> timedelta:
    """Read a duration; without a unit, seconds.

    Raises:
      ValueError: if it is none.
    """
    found = _DURATION.fullmatch(text.strip())
    length = timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else None
    if length is None or length > _LONGEST:
        raise ValueError(text)
    return length


def read_duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> timedelta | None:
    """Read the duration of an option, as click's callback."""
    try:
        return None if value is None else duration(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a duration, such as 90, 30s, 5m, 2h or 7d.") from None


def read_since(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | timedelta | None:
    """Read a duration before now, or a time, which is local unless it has an offset; as click's callback."""
    if value is None:
        return None
    try:
        return duration(value)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", value)).astimezone()
    except (ValueError, OverflowError):
        problem = f"{value!r} is neither a duration (30m, 2h, 7d) nor a time (2026-11-26T14:00)."
        raise click.BadParameter(problem) from None
