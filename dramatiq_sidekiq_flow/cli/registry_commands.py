"""Commands ``stubs`` and ``registry``: files that tell each language of the other's jobs."""

from __future__ import annotations

import click

_output = click.option("--output", metavar="FILE", help="File to write.  [default: standard output]")


@click.command(short_help="Write Ruby classes for Python's actors, or the reverse.")
@click.argument("broker", metavar="[app:broker]", required=False)
@click.option("--from-manifest", metavar="FILE", help="A registry file: write Python helpers for its Ruby classes.")
@_output
def stubs(broker: str | None, from_manifest: str | None, output: str | None) -> None:
    """Write Ruby classes for Python's actors, so that Ruby can advance onto them; or the other way round."""
    if (broker is None) == (from_manifest is None):
        raise click.UsageError("Name either app:broker or --from-manifest FILE.", click.get_current_context())
    from .registry_output import python_helpers, ruby_stubs, write

    if from_manifest is not None:
        write(python_helpers(from_manifest), output)
    elif broker is not None:
        write(ruby_stubs(broker), output)


@click.command(short_help="Write the classes of both languages as a file.")
@click.argument("broker", metavar="app:broker")
@_output
def registry(broker: str, output: str | None) -> None:
    """Write Python's actors, and Ruby's classes from Redis, as a registry file."""
    from .registry_output import registry_content, write

    write(registry_content(broker, output), output)
