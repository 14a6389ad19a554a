"""The commands, and what they have in common: help, version, errors, exit codes."""

from __future__ import annotations

import click

from .. import __version__
from .bridge_command import bridge
from .completion_command import completion
from .doctor_command import doctor
from .groups import RootGroup
from .program import PROGRAM
from .registry_commands import registry, stubs
from .release_command import release
from .runs_commands import runs
from .web_command import web

EPILOG = """\b
Exit codes:
  0  done
  1  something is failed or stuck
  2  wrong usage or an error, which is printed as one line

A command that takes app:broker finds the broker as `dramatiq` does: app is a
module, and broker its broker. Without :broker it is the global broker.
"""


@click.group(cls=RootGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def root() -> None:
    """Workflows of Dramatiq and Sidekiq: files that tell each language of the other's jobs, and commands for
    running workflows."""


for _command in (bridge, completion, doctor, registry, release, runs, stubs, web):
    root.add_command(_command)
