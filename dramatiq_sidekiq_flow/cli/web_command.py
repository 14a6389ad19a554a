"""Command ``web``: serves the pages of runs."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import click

from ..errors import ConfigurationError
from .redis_options import chosen_broker

USERNAME, PASSWORD = "SIDEKIQ_FLOW_WEB_USERNAME", "SIDEKIQ_FLOW_WEB_PASSWORD"

#: The extra ``web``.
NEEDED = ("jinja2", "starlette", "uvicorn")


@click.command(short_help="Serve web pages of the runs.")
@click.argument("app", metavar="[app:broker]", required=False)
@click.option("--url", metavar="URL", help="Read this Redis in place of that of an app.  [env var: REDIS_URL]")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address to serve on.")
@click.option("--port", type=click.IntRange(1, 65535), default=9293, show_default=True, metavar="N", help="Port.")
@click.option("--username", metavar="NAME", help=f"Name to ask for, with a password.  [env var: {USERNAME}]")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help=f"Its first line is the password to ask for.  [env var: {PASSWORD}, the password itself]",
)
@click.option("--root-path", default="", metavar="PATH", help="Where a proxy serves the pages, such as /flow.")
@click.option("--read-only", is_flag=True, help="Leave out the buttons.")
def web(
    app: str | None,
    url: str | None,
    host: str,
    port: int,
    username: str | None,
    password_file: Path | None,
    root_path: str,
    read_only: bool,
) -> None:
    """Serve web pages that show the runs, live, and cancel them.

    Serves until Ctrl-C or SIGTERM. Without a password, only this machine can
    see the pages, and --host must be an address of it.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"The web pages need {', '.join(missing)}. Install them: pip install 'dramatiq-sidekiq-flow[web]'", missing
        )
    credentials = read_credentials(username, password_file)
    from ..web.page_server import serve

    broker = chosen_broker(app, url, option="")
    click.echo(f"Runs: http://{_shown(host)}:{port}{root_path}/  (Ctrl-C ends)", err=True)
    serve(broker, host, port, credentials=credentials, root_path=root_path, read_only=read_only)


def read_credentials(username: str | None, password_file: Path | None) -> tuple[str, str] | None:
    """Read name and password, of the options or else of the environment; None without both.

    Raises:
      click.UsageError: if one is missing, or if the password is empty.
    """
    username = username or os.environ.get(USERNAME)
    password = _first_line(password_file) if password_file else os.environ.get(PASSWORD)
    if username is None and password is None:
        return None
    context = click.get_current_context()
    if not username or ":" in username:
        raise click.UsageError(f"Name a user with --username or {USERNAME}; the name has no colon.", context)
    if not password:
        raise click.UsageError(f"Give a password with --password-file or {PASSWORD}; it must not be empty.", context)
    return username, password


def _first_line(path: Path) -> str:
    return path.read_text("utf-8").partition("\n")[0].rstrip("\r")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
