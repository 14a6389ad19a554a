"""The commands that are captured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import click

from dramatiq_sidekiq_flow.cli.command_line import root

from ..broken_runs import Way

#: The runs that are failed or stuck.
_BAD = ("failed", "lost")


@attrs.frozen
class Command:
    """A command, and how it ends.

    Attributes:
      name: Of its file.
      words: After ``sidekiq-flow``.
      code: Its exit code.
      is_live: It does not end by itself.
    """

    name: str
    words: tuple[str, ...]
    code: int = 0
    is_live: bool = False


def commands(ids: Mapping[str, str]) -> list[Command]:
    """Return the commands for healthy and failed runs with these ids."""
    return [
        *_helps(root, ()),
        Command("list", ("runs", "list")),
        Command("list-failed", ("runs", "list", "--state", "failed")),
        *(Command(f"show-{each}", ("runs", "show", run_id), int(each in _BAD)) for each, run_id in ids.items()),
        Command("explain-running", ("runs", "explain", ids["running"])),
        Command("watch", ("runs", "watch", ids["running"]), 130, is_live=True),
        Command("watch-failed", ("runs", "watch", ids["failed"]), 1),
        Command("doctor", ("doctor",), 1),
        Command("doctor-rerun", ("doctor", "--fix", "rerun"), 1),
        Command("unknown-run", ("runs", "show", "no-run"), 2),
    ]


def explain(way: Way, run_id: str) -> Command:
    """Return the command that explains a broken run."""
    return Command(f"explain-{way.cause}", ("runs", "explain", run_id), int(way.verdict in ("failed", "stuck")))


def _helps(command: click.Command, words: tuple[str, ...]) -> Iterator[Command]:
    yield Command("-".join(("help", *words)), (*words, "--help"))
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from _helps(each, (*words, name))
