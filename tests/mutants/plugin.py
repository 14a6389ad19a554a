"""Loaded into pytest for each mutant: sees that the copy is what is tested, and notes which test failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

#: Seconds after which a test that awaits a condition gives up; ``tests/running.py`` waits longer.
PATIENCE = 8.0


def pytest_configure(config: pytest.Config) -> None:
    import dramatiq_sidekiq_flow
    from tests import running

    copy = Path(os.environ["DSF_MUTANTS_COPY"]).resolve()
    found = Path(dramatiq_sidekiq_flow.__file__).resolve().parent.parent
    if found != copy:
        raise pytest.UsageError(f"The package of {found} would be tested, not the copy in {copy}.")
    running.eventually.__defaults__ = (PATIENCE, "")


def pytest_runtest_logreport(report: Any) -> None:
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        message = crash.message if crash is not None else str(report.longrepr)
        noted = {"test": report.nodeid, "when": report.when, "error": message.strip().partition("\n")[0][:200]}
        Path(os.environ["DSF_MUTANTS_REPORT"]).write_text(json.dumps(noted))
