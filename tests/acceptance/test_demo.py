"""The proof holds, and fails where the order does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .processes import ROOT


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "examples/demo.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_the_demo_proves_the_order_though_a_worker_is_killed() -> None:
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9 worker" in done.stdout
    assert "its job was recovered" in done.stdout
    assert "OK:" in done.stdout


@pytest.mark.parametrize(
    ("sabotage", "violation"),
    [("early", "task4 started before"), ("twice", "task4 was enqueued 2 times")],
)
def test_a_violation_exits_1_and_is_named(sabotage: str, violation: str) -> None:
    done = demo("--sabotage", sabotage)
    assert done.returncode == 1
    assert f"VIOLATION: {violation}" in done.stdout
