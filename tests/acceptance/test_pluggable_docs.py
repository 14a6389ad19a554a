"""docs/pluggable.md: what it shows is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "pluggable.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(# (\S+.*?)\n.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def pytest_run(folder: Path, *arguments: str) -> str:
    """Run pytest as a reader does, in a folder of its own; what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def block(name: str) -> str:
    text: str
    (text,) = [text for text, head in BLOCKS if head == name]
    return text


def test_the_implementations_shown_pass_the_suites(tmp_path: Path) -> None:
    names = ("memory", "barrier", "storage", "suites")
    (tmp_path / "test_mine.py").write_text("\n\n".join(block(f"example: {name}") for name in names))
    assert re.search(r"2\d passed", pytest_run(tmp_path, "--timeout=100"))


def test_the_application_shown_is_tested_as_shown(tmp_path: Path) -> None:
    for name in ("app.py", "test_app.py", "conftest.py"):
        (tmp_path / name).write_text(block(name))
    (tmp_path / "test_fixture.py").write_text(
        "import app\n\ndef test_it(flow):\n    assert flow.run(app.extract.message('1')).order == ['extract']\n"
    )
    assert "3 passed" in pytest_run(tmp_path)
