"""Errors as lines on standard error."""

from __future__ import annotations

import click

from ..errors import FlowError


def report(where: str, text: str) -> None:
    """Write a line: the command, and the problem."""
    click.echo(f"{where}: {' '.join(text.split())}", err=True)


def warn(text: str) -> None:
    """Write a line for a command that continues."""
    report(click.get_current_context().find_root().info_name or "", text)


def is_expected(error: Exception) -> bool:
    """Return True for an error of the application, of Redis or of a file, which needs no traceback."""
    if isinstance(error, (FlowError, OSError)):
        return True
    # Only a command that uses a broker can raise these, and has imported both.
    from dramatiq import DramatiqError

    from ..store.faults import FAULTS

    return isinstance(error, (DramatiqError, *FAULTS))
