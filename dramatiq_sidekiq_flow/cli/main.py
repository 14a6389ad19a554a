"""``python -m dramatiq_sidekiq_flow stubs | registry``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import dramatiq

from ..broker import SidekiqBroker
from ..errors import ConfigurationError, FlowError
from ..typed import manifest, registry
from . import stubs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
      0; 2 for an error, which is one line on standard error.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        _write(_text(options), options.output)
    except (FlowError, OSError, ImportError) as e:
        print(f"{parser.prog}: {e}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dramatiq_sidekiq_flow",
        description="What either language needs to know of the other's jobs, as files to check in.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    stub = commands.add_parser(
        "stubs",
        help="write Ruby classes for Python's actors, so that Ruby can advance onto them; or the other way round",
    )
    source = stub.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "broker", nargs="?", metavar="app:broker", help="module, and the broker in it where it is named"
    )
    source.add_argument(
        "--from-manifest", metavar="FILE", help="a registry file: write Python helpers for its Ruby classes"
    )
    written = commands.add_parser("registry", help="write a registry file of Python's actors")
    written.add_argument("broker", metavar="app:broker", help="module, and the broker in it where it is named")
    for command in (stub, written):
        command.add_argument("--output", metavar="FILE", help="write there, not to standard output")
    return parser


def _text(options: argparse.Namespace) -> str:
    if options.command == "registry":
        return manifest.dump({"python": registry.actors(find_broker(options.broker))})
    if options.from_manifest:
        return stubs.python(manifest.read(options.from_manifest).get("ruby", {}))
    return stubs.ruby(registry.actors(find_broker(options.broker)))


def find_broker(name: str) -> SidekiqBroker:
    """A broker by name, looked up as the ``dramatiq`` command does.

    Raises:
      ConfigurationError: where there is none.
    """
    sys.path.insert(0, "")
    module_name, _, attribute = name.partition(":")
    module = importlib.import_module(module_name)
    try:
        found = reduce(getattr, attribute.split("."), module) if attribute else dramatiq.get_broker()
    except AttributeError:
        raise ConfigurationError(f"The module {module_name!r} has no {attribute!r}.", name) from None
    if callable(found) and not isinstance(found, dramatiq.Broker):
        found()
        found = dramatiq.get_broker()
    if not isinstance(found, SidekiqBroker):
        raise ConfigurationError(f"{name} is no SidekiqBroker, but a {type(found).__name__}.", name)
    return found


def _write(text: str, path: str | None) -> None:
    if path is None:
        sys.stdout.write(text)
    else:
        Path(path).write_text(text, "utf-8")
