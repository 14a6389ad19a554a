"""Command ``completion``: the script with which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .program import PROGRAM

_VARIABLE = "_SIDEKIQ_FLOW_COMPLETE"


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script with which a shell completes sidekiq-flow.

    \b
    bash: eval "$(sidekiq-flow completion bash)"     in ~/.bashrc
    zsh:  eval "$(sidekiq-flow completion zsh)"      in ~/.zshrc
    fish: sidekiq-flow completion fish | source      in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, PROGRAM, _VARIABLE).source())
