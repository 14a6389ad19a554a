"""How many examples a property is tried with.

``DSF_TEST_FEWER=4`` takes a quarter of each number: ``make test-floor``, which shows that the properties hold on
another Python and on other packages.  ``make test`` searches for examples.
"""

from __future__ import annotations

import os

_FEWER = int(os.environ.get("DSF_TEST_FEWER", "1"))


def examples(count: int) -> int:
    """So many examples, or the part of them that the environment asks for; at least 10."""
    return max(count // _FEWER, min(count, 10))
