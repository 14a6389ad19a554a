"""Durations for people."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dramatiq_sidekiq_flow.cli.terminal import length


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 ms"),
        (0, "0 ms"),
        (0.0204, "20 ms"),
        (1, "1.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "120 min"),
        (7_200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_a_duration_is_in_one_unit(seconds: float, text: str) -> None:
    assert length(timedelta(seconds=seconds)) == text
