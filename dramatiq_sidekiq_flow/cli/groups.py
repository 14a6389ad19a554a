"""Groups of commands."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .program import PIPE_CLOSED


class CommandGroup(click.Group):
    """A group that prints its help when it is called without a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)


class RootGroup(CommandGroup):
    """The group of all commands; it ends quietly when the reader of standard output is gone (``| head``)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            # Python flushes once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(PIPE_CLOSED)
