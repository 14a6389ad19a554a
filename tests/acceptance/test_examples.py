"""Each example runs by one command, and the proof fails where the order does not hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .processes import ROOT


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    "example", ["memory", "mounted_starlette", "proof", "send_many", "templates", "templates_yaml", "typed_job"]
)
def test_an_example_runs(example: str) -> None:
    done = python(f"examples/{example}.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("sabotage", "violation"),
    [
        ("events.insert(0, events.pop(events.index((run, 'start', 'task4'))))", "task4 started before task2 had ended"),
        ("events.append((run, 'start', 'task3'))", "task3 has 2 times a start"),
        ("events.remove((run, 'end', 'task2'))", "task2 has 0 times an end"),
    ],
)
def test_the_proof_exits_1_where_the_order_is_violated(sabotage: str, violation: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'examples')\n"
        "import proof\n"
        "from proof import events, violations\n"
        "def look(run):\n"
        "    if not seen:\n"
        f"        {sabotage}\n"
        "    seen.append(run)\n"
        "    return violations(run)\n"
        "seen = []\n"
        "proof.violations = look\n"
        "sys.exit(proof.main())\n"
    )
    done = python("-c", code)
    assert done.returncode == 1, done.stdout + done.stderr
    assert violation in done.stdout
