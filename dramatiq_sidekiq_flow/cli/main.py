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
from ..store.registry import UNREADABLE
from ..typed import manifest, registry
from ..typed.registry import Entry
from ..workflow import completion_of, restart_remaining
from . import bridge_command, stubs


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
        if options.command == "bridge":
            bridge_command.run(find_broker(options.broker), options.queues)
            return 0
        if options.command == "release":
            run_id = restart_remaining(find_broker(options.broker), options.jid, members=options.members)
            print(f"Job {options.jid} counts as done; run {run_id} goes on.")
            return 0
        _write(_text(options), options.output)
    except (FlowError, OSError) as e:
        _say(str(e))
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _say(text: str) -> None:
    print(f"python -m dramatiq_sidekiq_flow: {' '.join(text.split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
    written = commands.add_parser(
        "registry", help="write Python's actors, and Ruby's classes from Redis, as a registry file"
    )
    written.add_argument("broker", metavar="app:broker", help="module, and the broker in it where it is named")
    bridging = commands.add_parser(
        "bridge", help="bring jobs from Sidekiq's queues onto the broker of the app, where that is not a SidekiqBroker"
    )
    bridging.add_argument("broker", metavar="app:broker", help="module, and the broker in it where it is named")
    bridging.add_argument(
        "--queues", "-Q", nargs="*", metavar="QUEUE", help="bridge these, not all that the broker declares"
    )
    releasing = commands.add_parser(
        "release", help="go on with a run whose step is done, but died because a barrier was gone (BarrierExpired)"
    )
    releasing.add_argument("broker", metavar="app:broker", help="module, and the broker in it where it is named")
    releasing.add_argument("jid", metavar="JID", help="of the job in dead or retry; it counts as done")
    releasing.add_argument(
        "--members",
        type=int,
        default=1,
        metavar="N",
        help="where it is a member of a group: how many, with this one, are still to be done or released (1)",
    )
    for command in (stub, written):
        command.add_argument("--output", metavar="FILE", help="write there, not to standard output")
    return parser


def _text(options: argparse.Namespace) -> str:
    if options.command == "registry":
        return _registry(find_broker(options.broker), options.output)
    if options.from_manifest:
        known = manifest.read(options.from_manifest)
        return stubs.python(_without(known.get("ruby", {}), known.get("python", {})))
    return stubs.ruby(registry.actors(find_broker(options.broker)))


def _registry(broker: SidekiqBroker, path: str | None) -> str:
    """Python's part anew; Ruby's from Redis, or where Redis has none, as the file has it."""
    found = dict(manifest.read(path)) if path is not None and Path(path).exists() else {}
    found["python"] = registry.actors(broker)
    try:
        published = registry.published(broker.connection)
    except UNREADABLE as e:
        _say(f"Ruby's classes stay as they were, {broker.connection.url} cannot be read: {e}")
        return manifest.dump(found)
    # Ruby publishes its stubs of Python's actors, too.
    ruby = _without(published["ruby"], {**published["python"], **found["python"]})
    return manifest.dump({**found, "ruby": ruby} if ruby else found)


def _without(classes: Mapping[str, Entry], others: Mapping[str, Entry]) -> dict[str, Entry]:
    return {name: entry for name, entry in classes.items() if name not in others}


def find_broker(name: str) -> SidekiqBroker:
    """A broker by name, looked up as the ``dramatiq`` command does.

    For one that is not a SidekiqBroker, the gateway of its WorkflowMiddleware.

    Raises:
      ConfigurationError: where there is none.
    """
    sys.path.insert(0, os.getcwd())
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        found = reduce(_attribute, attribute.split("."), module) if attribute else dramatiq.get_broker()
        if isinstance(found, dramatiq.Actor):
            raise ConfigurationError(f"{name} is an actor. Name its broker, or only the module: {module_name}.", name)
        if callable(found) and not isinstance(found, dramatiq.Broker):
            found()
            found = dramatiq.get_broker()
    except FlowError:
        raise
    except Exception as e:
        # Whatever the application raises when it is imported.
        raise ConfigurationError(f"{name} cannot be loaded: {type(e).__name__}: {e}", name) from e
    if isinstance(found, dramatiq.Broker) and not isinstance(found, SidekiqBroker):
        found = completion_of(found).broker
    if not isinstance(found, SidekiqBroker):
        raise ConfigurationError(f"{name} is not a SidekiqBroker, but a {type(found).__name__}.", name)
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
