"""Options ``--app`` and ``--url``: the Redis that a command reads."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..broker import SidekiqBroker

APP, URL = "SIDEKIQ_FLOW_APP", "REDIS_URL"

_Result = TypeVar("_Result")


def redis_options(command: Callable[..., _Result]) -> Callable[..., _Result]:
    """Add both options to a command, which gets the broker as its parameter ``broker``."""

    @click.option("--app", metavar="app:broker", help=f"Read the Redis of this broker.  [env var: {APP}]")
    @click.option("--url", metavar="URL", help=f"Read this Redis, such as redis://localhost/0.  [env var: {URL}]")
    @functools.wraps(command)
    def found(*arguments: Any, app: str | None, url: str | None, **options: Any) -> _Result:
        return command(*arguments, broker=chosen_broker(app, url), **options)

    return found


def chosen_broker(app: str | None, url: str | None, option: str = "--app ") -> SidekiqBroker:
    """The application's broker, or one of its own for a URL: nothing is run with it.

    Parameters:
      option: In front of an app on the command line.

    Raises:
      click.UsageError: if neither is given, nor set in the environment; or both.
      ConfigurationError: if the app, or the URL, cannot be used.
    """
    context = click.get_current_context()
    if app and url:
        raise click.UsageError(f"Name either {option}app:broker or --url.", context)
    if not (app or url):
        app, url = os.environ.get(APP), os.environ.get(URL)
    if app:
        from .app_lookup import find_broker

        return find_broker(app)
    if not url:
        raise click.UsageError(f"Name a Redis: {option}app:broker, --url redis://..., or set {APP} or {URL}.", context)
    from ..broker import SidekiqBroker
    from ..middleware import WorkflowMiddleware
    from ..store.memory import RedisHashMemory

    broker = SidekiqBroker(url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    context.call_on_close(broker.close)
    return broker
