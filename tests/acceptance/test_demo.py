"""The proof holds, and fails where the order does not."""

from __future__ import annotations

import signal
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
    assert "again: its worker died" in done.stdout
    assert "OK:" in done.stdout


@pytest.mark.parametrize(
    ("sabotage", "violation"),
    [("early", "task4 started before"), ("twice", "task4 was enqueued 2 times")],
)
def test_a_violation_exits_1_and_is_named(sabotage: str, violation: str) -> None:
    done = demo("--sabotage", sabotage)
    assert done.returncode == 1
    assert f"VIOLATION: {violation}" in done.stdout


def test_it_fits_a_terminal_of_80_columns() -> None:
    done = demo()
    assert max(map(len, done.stdout.splitlines())) < 80, done.stdout


def test_ctrl_c_ends_it_without_a_traceback() -> None:
    command = [sys.executable, "-u", "examples/demo.py"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert said.endswith("stopped\n")
    assert process.returncode == 130
