"""References of a plan, as it uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..wire.callbacks import Callback
from ..wire.nodes import Wire


class References(Protocol):
    """Protocol of the references in one plan's payloads; see ``workflow.stack_references``.

    Attributes:
      least: Minimum bytes of a stack for which :meth:`hold` is called.
      allowance: Seconds that the barriers of the plan must live longer.
    """

    least: int
    allowance: int

    def divide(self, children: list[Wire]) -> list[Wire]:
        """Get the steps of a chain that starts, some of them joined to one step; they do the same."""

    def hold(self, stack: tuple[Callback, ...], job: Mapping[str, Any]) -> tuple[Callback, ...]:
        """Get the stack as a job's payload holds it; the same object for the same stack."""

    def resolve(self, reference: Wire, ttl: int) -> tuple[Wire, Wire | None]:
        """Read the step that a reference points at, and the reference to the steps after it; None if it is the last."""

    def write(self, ttl: int) -> None:
        """Store the chains that the payloads refer to, for at least ``ttl`` seconds."""
