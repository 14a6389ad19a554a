"""The error of a call that names a run without a record."""

from __future__ import annotations

from ..errors import UnknownRun, shortened


def unknown_run(run_id: str, consequence: str) -> UnknownRun:
    """Make the error of a run without a record.

    Parameters:
      consequence: What follows from it, such as ``so it cannot be cancelled``.
    """
    return UnknownRun(
        f"There is no record of the run {shortened(run_id)}, {consequence}: no workflow has this id, its record has "
        "expired, or records are switched off (WorkflowMiddleware(records=False)).",
        run_id,
    )
