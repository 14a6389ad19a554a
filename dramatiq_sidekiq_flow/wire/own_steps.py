"""Steps that a worker of the package runs itself, by the names under which they are carried."""

from __future__ import annotations

from typing import Any

from .need import is_needing
from .wait_for import is_wait


def is_own(name: Any) -> bool:
    """Return True for the name of a WaitFor, or of a carrier of a group that needs some of its members."""
    return is_wait(name) or is_needing(name)
