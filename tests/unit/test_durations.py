"""Durations and times as arguments."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import click
import pytest

from dramatiq_sidekiq_flow.cli.durations import read_duration, read_since

CONTEXT = click.Context(click.Command("x"))
OPTION = click.Option(["--time"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0", 0), ("1.5", 1.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604_800), (" 5m ", 300)],
)
def test_a_duration_has_a_unit_or_is_in_seconds(text: str, seconds: float) -> None:
    assert read_duration(CONTEXT, OPTION, text) == read_since(CONTEXT, OPTION, text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "m", "-5m", "5w", "5 m", "1e3", "nan", "99999999999", "36501d", "2026-13-01"])
def test_what_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a duration"):
        read_duration(CONTEXT, OPTION, text)
    with pytest.raises(click.BadParameter, match="neither a duration"):
        read_since(CONTEXT, OPTION, text)


def test_nothing_stays_nothing() -> None:
    assert read_duration(CONTEXT, OPTION, None) is read_since(CONTEXT, OPTION, None) is None


@pytest.mark.parametrize("text", ["2026-11-26T14:00:00+02:00", "2026-11-26T12:00:00Z", "2026-11-26T12:00:00.000+00:00"])
def test_a_time_with_an_offset(text: str) -> None:
    assert read_since(CONTEXT, OPTION, text) == datetime(2026, 11, 26, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(("text", "hour"), [("2026-11-26", 0), ("2026-11-26T14:00", 14), ("2026-11-26 14:00", 14)])
def test_a_time_without_one_is_local(text: str, hour: int) -> None:
    found = read_since(CONTEXT, OPTION, text)
    assert found == datetime(2026, 11, 26, hour).astimezone()
    assert isinstance(found, datetime)
    assert found.tzinfo is not None
