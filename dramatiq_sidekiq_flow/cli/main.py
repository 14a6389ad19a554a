"""``python -m dramatiq_sidekiq_flow stubs | registry | bridge | release``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn

import dramatiq

from ..broker import SidekiqBroker
from ..errors import ConfigurationError, FlowError
from ..registry import file as registry_file
from ..registry import registry, stubs
from ..registry.registry import Entry
from ..store.class_registry import UNREADABLE
from ..workflow.engine_lookup import engine_of
from ..workflow.resume import restart_remaining
from . import bridge_command

_BROKER_HELP = "module, and the name of the broker in it"
_OUTPUT_HELP = "file to write; by default standard output"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
      Exit code: 0, or 2 after an error, which is printed as one line on standard error.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        _run(options)
    except (FlowError, OSError) as e:
        _print_error(str(e))
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    if options.command == "bridge":
        bridge_command.run(find_broker(options.broker), options.queues)
    elif options.command == "release":
        run_id = restart_remaining(find_broker(options.broker), options.jid, members=options.members)
        print(f"Job {options.jid} counts as done; run {run_id} continues.")
    else:
        _write(_text(options), options.output)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _print_error(text: str) -> None:
    print(f"python -m dramatiq_sidekiq_flow: {' '.join(text.split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m dramatiq_sidekiq_flow",
        description="Files that tell each language of the other's jobs, and commands for running workflows.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for add in (_add_stubs, _add_registry, _add_bridge, _add_release):
        add(commands)
    return parser


def _add_stubs(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "stubs",
        help="write Ruby classes for Python's actors, so that Ruby can advance onto them; or the other way round",
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("broker", nargs="?", metavar="app:broker", help=_BROKER_HELP)
    source.add_argument(
        "--from-manifest", metavar="FILE", help="a registry file: write Python helpers for its Ruby classes"
    )
    command.add_argument("--output", metavar="FILE", help=_OUTPUT_HELP)


def _add_registry(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "registry", help="write Python's actors, and Ruby's classes from Redis, as a registry file"
    )
    command.add_argument("broker", metavar="app:broker", help=_BROKER_HELP)
    command.add_argument("--output", metavar="FILE", help=_OUTPUT_HELP)


def _add_bridge(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "bridge", help="move jobs from Sidekiq's queues to the broker of the app, if that is not a SidekiqBroker"
    )
    command.add_argument("broker", metavar="app:broker", help=_BROKER_HELP)
    command.add_argument(
        "--queues", "-Q", nargs="*", metavar="QUEUE", help="only these queues; by default all that the broker declares"
    )


def _add_release(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "release", help="continue a run whose step is done, but died because a barrier was gone (BarrierExpired)"
    )
    command.add_argument("broker", metavar="app:broker", help=_BROKER_HELP)
    command.add_argument("jid", metavar="JID", help="id of the job in dead or retry; it counts as done")
    command.add_argument(
        "--members",
        type=int,
        default=1,
        metavar="N",
        help="if it is a member of a group: how many members, with this one, are still to be done or released (1)",
    )


def _text(options: argparse.Namespace) -> str:
    if options.command == "registry":
        return _registry(find_broker(options.broker), options.output)
    if options.from_manifest:
        known = registry_file.read(options.from_manifest)
        return stubs.python(_without(known.get("ruby", {}), known.get("python", {})))
    return stubs.ruby(registry.actors(find_broker(options.broker)))


def _registry(broker: SidekiqBroker, path: str | None) -> str:
    """Make the registry file: Python's part from the broker, Ruby's from Redis, or from the old file without Redis."""
    content: dict[str, Any] = {}
    if path is not None and Path(path).exists():
        content.update(registry_file.read(path))
    content["python"] = registry.actors(broker)
    try:
        published = registry.published(broker.connection)
    except UNREADABLE as e:
        _print_error(f"Ruby's classes were not updated: {broker.connection.url} cannot be read: {e}")
        return registry_file.dump(content)
    # Ruby also publishes its stubs of Python's actors.
    ruby = _without(published["ruby"], {**published["python"], **content["python"]})
    if ruby:
        content["ruby"] = ruby
    return registry_file.dump(content)


def _without(classes: Mapping[str, Entry], others: Mapping[str, Entry]) -> dict[str, Entry]:
    return {name: entry for name, entry in classes.items() if name not in others}


def find_broker(name: str) -> SidekiqBroker:
    """Find a broker by name, as the ``dramatiq`` command does.

    For another broker, finds the SidekiqBroker of its WorkflowMiddleware.

    Raises:
      ConfigurationError: if there is none.
    """
    sys.path.insert(0, os.getcwd())
    try:
        found = _load(name)
    except FlowError:
        raise
    except Exception as e:
        # Any error of the application's import.
        raise ConfigurationError(f"{name} cannot be loaded: {type(e).__name__}: {e}", name) from e
    if isinstance(found, dramatiq.Broker) and not isinstance(found, SidekiqBroker):
        found = engine_of(found).broker
    if not isinstance(found, SidekiqBroker):
        raise ConfigurationError(f"{name} is a {type(found).__name__}, not a SidekiqBroker.", name)
    return found


def _load(name: str) -> Any:
    """Import a module, and find a broker in it; a function is called, and sets the global broker."""
    module_name, _, attribute = name.partition(":")
    module = importlib.import_module(module_name)
    if not attribute:
        return dramatiq.get_broker()
    found = reduce(_attribute, attribute.split("."), module)
    if isinstance(found, dramatiq.Actor):
        raise ConfigurationError(f"{name} is an actor. Name its broker, or only the module: {module_name}.", name)
    if callable(found) and not isinstance(found, dramatiq.Broker):
        found()
        return dramatiq.get_broker()
    return found


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except AttributeError:
        raise ConfigurationError(f"{getattr(value, '__name__', value)!r} has no {name!r}.", name) from None


def _write(text: str, path: str | None) -> None:
    if path is None:
        sys.stdout.write(text)
    else:
        Path(path).write_text(text, "utf-8")
