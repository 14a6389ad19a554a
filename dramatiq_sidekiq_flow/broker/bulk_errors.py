"""Errors of sending many jobs: which item, and what was sent before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq

from ..errors import FlowError


class telling:
    """Context manager that adds to an error the messages that were sent before."""

    def __init__(self, sent: Sequence[dramatiq.Message[Any]]) -> None:
        self.sent = sent

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            error.sent = self.sent  # type: ignore[attr-defined]


class naming:
    """Context manager that adds the index of the item to an error."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, FlowError):
            error.message = f"Item {self.index}: {error.message}"
            error.args = (error.message,)
