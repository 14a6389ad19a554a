"""``sidekiq-flow``, and ``python -m dramatiq_sidekiq_flow``: errors become one line and an exit code."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from .program import ERROR, PROGRAM

#: The packages of the extra ``cli``.
NEEDED = ("click", "rich")


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Run a command.

    Parameters:
      arguments: Default: those of the process.
      program: The name in help and errors.

    Returns:
      Exit code: 0; 1 if something is failed or stuck; 2 after an error, which is printed as one line on standard
      error; 130 after Ctrl-C, and 141 if the reader of standard output went away.
    """
    if not all(importlib.util.find_spec(name) for name in NEEDED):
        return _fail(program, "The command line needs click and rich: pip install 'dramatiq-sidekiq-flow[cli]'")
    from .command_line import run

    return run(arguments, program)


def _fail(program: str, text: str) -> int:
    print(f"{program}: {text}", file=sys.stderr)
    return ERROR
