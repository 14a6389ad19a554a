"""Runs pytest on a copy of the tree, unchanged or with one mutant in it."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from .mutant import PACKAGE, Mutant, path_of

ROOT = Path(__file__).parent.parent.parent

#: What is copied: all that tests read.
PARTS = (PACKAGE, "tests", "interop", "docs", "examples", "pyproject.toml", "setup.cfg", "README.md", "CHANGELOG.md")

#: Seconds that one mutant may take. One that hangs is killed, in both senses.
LIMIT = 90


@attrs.frozen
class Outcome:
    """How one run of pytest ended.

    Attributes:
      state: ``killed``: a test failed. ``hung``: killed, by the clock. ``survived``: no test failed.
        ``broken``: pytest could not run.
      test: The test that failed.
      error: The first line of how; for ``broken``, the end of what pytest printed.
      seconds: That it took.
    """

    state: str
    test: str
    error: str
    seconds: float


class Copy:
    """A copy of the tree, for one mutant at a time.

    Parameters:
      folder: Where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = folder / "failed.json"
        self._process: subprocess.Popen[bytes] | None = None
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, folder / part)
        # By hash, not by time and size: a changed file must never be run from its old bytecode.
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        for part in (PACKAGE, "tests"):
            compileall.compile_dir(str(folder / part), quiet=2, invalidation_mode=checked)

    def try_mutant(self, mutant: Mutant) -> Outcome:
        """Put a mutant in, run its tests, and take it out again."""
        path = path_of(mutant, self.folder)
        source = path.read_text("utf-8")
        path.write_text(mutant.applied(source), "utf-8")
        try:
            return self.run(mutant.tests, LIMIT)
        finally:
            path.write_text(source, "utf-8")

    def run(self, tests: Sequence[str], limit: float) -> Outcome:
        """Run tests until one fails."""
        began = time.monotonic()
        self.report.unlink(missing_ok=True)
        log = self.folder / "output"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
                 "-p", "tests.mutants.plugin", *(f"tests/{test}" for test in tests)],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                code = self._process.wait(limit)
            except subprocess.TimeoutExpired:
                return Outcome("hung", "", f"not within {limit:.0f} s", time.monotonic() - began)
            finally:
                self.stop()
        return self._judge(code, log, time.monotonic() - began)

    def _judge(self, code: int, log: Path, seconds: float) -> Outcome:
        if code == 0:
            return Outcome("survived", "", "", seconds)
        if code == 1 and self.report.exists():
            noted = json.loads(self.report.read_text())
            return Outcome("killed", noted["test"].removeprefix("tests/"), noted["error"], seconds)
        lines = log.read_text("utf-8", "replace").splitlines()
        return Outcome("broken", "", f"pytest exited with {code}: " + "\n".join(lines[-15:]), seconds)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            # Also for the programs that tests start.
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DSF_MUTANTS_COPY": str(self.folder),
            "DSF_MUTANTS_REPORT": str(self.report),
            "TMPDIR": str(self.folder.parent),
        }

    def stop(self) -> None:
        """Kill what runs, and what it has started."""
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
