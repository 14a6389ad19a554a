"""Command ``bridge``: runs the bridge in a separate process."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..broker import SidekiqBroker

_QUEUES = ("-Q", "--queues")


class _QueuesCommand(click.Command):
    """A command whose option ``--queues`` takes all names that follow, as that of ``dramatiq`` does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_one_name_each(args)))


def _one_name_each(arguments: Iterable[str]) -> Iterator[str]:
    """Repeat the option before each name: ``-Q a b`` becomes ``-Q a -Q b``."""
    option, bare = None, False
    for argument in arguments:
        if argument.startswith("-"):
            if bare and option:
                yield option
            option = argument if argument in _QUEUES else None
            bare = option is not None
        elif option:
            yield option
            bare = False
        if not bare:
            yield argument
    if bare and option:
        yield option


@click.command(cls=_QueuesCommand, short_help="Move jobs from Sidekiq's queues to another Dramatiq broker.")
@click.argument("broker", metavar="app:broker")
@click.option(
    *_QUEUES,
    multiple=True,
    metavar="QUEUE ...",
    help="Only these queues.  [default: all that the broker declares]",
)
def bridge(broker: str, queues: tuple[str, ...]) -> None:
    """Move jobs from Sidekiq's queues to the broker of the app, if that is not a SidekiqBroker.

    Runs until SIGTERM or SIGINT.
    """
    from .app_lookup import find_broker

    _run(find_broker(broker), queues or None)


def _run(broker: SidekiqBroker, queues: Iterable[str] | None) -> None:
    """Run the bridge until SIGTERM or SIGINT.

    Raises:
      ConfigurationError: if it is a SidekiqBroker, whose workers fetch from Sidekiq's queues themselves.
    """
    from ..foreign.bridge import Bridge
    from ..foreign.foreign_broker import ForeignSidekiqBroker

    if not isinstance(broker, ForeignSidekiqBroker):
        raise ConfigurationError("A SidekiqBroker needs no bridge: its workers fetch from Sidekiq's queues.", broker)
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] [%(levelname)s] %(message)s")
    ended = threading.Event()

    def end(*_: Any) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    bridge = Bridge(broker)
    bridge.start(queues)
    bridge.logger.info("Bridging %s from %s.", ", ".join(sorted(bridge.queues)) or "nothing", broker.connection.url)
    while not ended.wait(1.0):
        pass
    bridge.stop()
