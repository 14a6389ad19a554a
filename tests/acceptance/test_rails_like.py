"""The example of both sides proves its order, and would see where it did not hold."""

from __future__ import annotations

import runpy
import subprocess
import sys
from typing import Any

import pytest

from .processes import ROOT

EXAMPLE = ROOT / "examples" / "rails_like.py"


def test_it_runs_with_one_command() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK: both sides ran their steps" in done.stdout


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def told(*names: str) -> list[dict[str, Any]]:
    return [{"what": what, "step": name, "jid": name} for name in names for what in ("start", "end")]


def test_what_it_would_see(example: dict[str, Any]) -> None:
    violations, steps, memory = example["violations"], example["STEPS"], example["MEMORY"]
    good = told(*steps)
    assert violations(good, memory) == []
    assert violations(good, {}) == ["the memory holds {}"]
    assert violations(good[:-2], memory) == ["Mailers::Notify was enqueued 0 times"]
    again = [{**event, "jid": "another"} for event in good[-2:]]
    assert violations(good + again, memory) == ["Mailers::Notify was enqueued 2 times"]
    early = told("Docs::Fetch", "extract", "summarize", "Images::Thumbnail", "Mailers::Notify")
    assert violations(early, memory) == ["summarize started before Images::Thumbnail had ended"]
