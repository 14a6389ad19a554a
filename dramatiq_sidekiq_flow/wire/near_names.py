"""Suggestions for misspelt names."""

from __future__ import annotations

from collections.abc import Collection

#: Minimum similarity of two names, from 0 to 1.
CUTOFF = 0.8


def near(name: str, known: Collection[str], most: int = 3) -> list[str]:
    """Find the known names that are similar to a name, the most similar first."""
    import difflib  # only a mistake needs it

    return difflib.get_close_matches(name, sorted(known), n=most, cutoff=CUTOFF)


def hint(name: str, known: Collection[str]) -> str:
    """Suggest known names in a sentence to append, `` Do you mean ...?``; return "" if none is similar."""
    similar = near(name, known)
    if not similar:
        return ""
    return f" Do you mean {' or '.join(map(repr, similar))}?"
