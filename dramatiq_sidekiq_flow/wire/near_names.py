"""Names that are nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Collection

#: How alike two names must be, from 0 to 1.
CUTOFF = 0.8


def near(name: str, known: Collection[str], most: int = 3) -> list[str]:
    """The known names that are most like a name, the nearest first."""
    return difflib.get_close_matches(name, sorted(known), n=most, cutoff=CUTOFF)


def hint(name: str, known: Collection[str]) -> str:
    """`` Do you mean ...?`` to put after a sentence; empty where no known name is like it."""
    found = near(name, known)
    return f" Do you mean {' or '.join(map(repr, found))}?" if found else ""
