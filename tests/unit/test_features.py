"""docs/features.md: each row names a test, and there is one."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"
ROWS = [line for line in (DOCS / "features.md").read_text("utf-8").splitlines() if line.startswith("| ")]
LINK = re.compile(r"\[(test_\w+)\]\((\S+)\)")


def test_each_test_that_is_named_is_there() -> None:
    named = [LINK.search(row) for row in ROWS]
    assert sum(found is not None for found in named) > 30
    for found in filter(None, named):
        assert f"def {found[1]}(" in (DOCS / found[2]).read_text("utf-8"), found[0]


def test_each_row_names_one() -> None:
    without = [row for row in ROWS if not LINK.search(row) and "shown by" not in row]
    assert len(without) == 1
    assert "it has none" in without[0]
