"""``sidekiq-flow``, and ``python -m dramatiq_sidekiq_flow``: errors become one line and an exit code."""

from __future__ import annotations

from collections.abc import Sequence

import click

from .command_errors import is_expected, report
from .command_line import root
from .program import ERROR, INTERRUPTED, PROGRAM


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Run a command.

    Parameters:
      arguments: Default: those of the process.
      program: The name in help and errors.

    Returns:
      Exit code: 0; 1 if something is failed or stuck; 2 after an error, which is printed as one line on standard
      error; 130 after Ctrl-C, and 141 if the reader of standard output went away.
    """
    try:
        code = root.main(arguments, prog_name=program, standalone_mode=False)
    except click.ClickException as e:
        report(_place(e) or program, e.format_message())
        return ERROR
    except click.Abort:
        return INTERRUPTED
    except Exception as e:
        if not is_expected(e):
            raise
        report(program, str(e) or type(e).__name__)
        return ERROR
    return code or 0


def _place(error: click.ClickException) -> str:
    """The command that an error comes from."""
    context = getattr(error, "ctx", None)
    return context.command_path if isinstance(context, click.Context) else ""
