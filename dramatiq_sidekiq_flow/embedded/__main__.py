"""``python -m dramatiq_sidekiq_flow.embedded -- COMMAND ...``: a server around a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ..errors import EmbeddedServerError
from .server import EmbeddedServer
from .shared import URL_VARIABLE

USAGE = f"""\
usage: python -m dramatiq_sidekiq_flow.embedded -- COMMAND [ARGUMENT ...]

Starts an embedded Redis server, runs the command, stops the server, and returns
the command's exit code. The environment variables REDIS_URL and {URL_VARIABLE}
hold the server's URL for the command; embedded:// stands for the same URL.
"""

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    """Run the command of a command line.  Call it once, at the end of a process.

    Returns:
      The command's exit code, or as in shells 128 + the number of its signal; 127
      for an unknown command, 2 for a wrong command line, 1 if no server starts.
    """
    if arguments in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    command = _command(arguments)
    if not command:
        print(USAGE, end="", file=sys.stderr)
        return 2
    try:
        with EmbeddedServer() as server:
            print(f"Redis server at {server.url}; its data is discarded at the end.", file=sys.stderr, flush=True)
            return _run(command, {**os.environ, URL_VARIABLE: server.url, "REDIS_URL": server.url})
    except EmbeddedServerError as e:
        print(e, file=sys.stderr)
        return 1


def _command(arguments: Sequence[str]) -> Sequence[str]:
    """The command of a command line; empty if it has none, or begins with an unknown option."""
    if arguments[:1] == ["--"]:
        return arguments[1:]
    is_option = bool(arguments) and arguments[0].startswith("-")
    return () if is_option else arguments


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    watched = {*FORWARDED, signal.SIGCHLD}
    # Blocked from before the command starts, so that no signal is lost, until this
    # process ends, so that no signal changes the exit code.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # some systems drop a blocked signal that has no handler
    try:
        process = subprocess.Popen(
            command, env=environment, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before)
        )
    except OSError as e:
        print(f"{command[0]}: {e.strerror}", file=sys.stderr)
        return 127
    while process.poll() is None:
        number, by_terminal = _next_signal(watched)
        # Ctrl-C reaches the command without us. Forwarded, it would arrive twice, and
        # at the second one dramatiq's workers abandon their jobs.
        if number != signal.SIGCHLD and not by_terminal:
            process.send_signal(number)
    code = process.returncode
    return code if code >= 0 else 128 - code


def _next_signal(watched: set[signal.Signals]) -> tuple[int, bool]:
    """Wait for a signal; also returns whether the terminal sent it to the whole process group."""
    if sys.platform.startswith("linux"):
        info = signal.sigwaitinfo(watched)
        return info.si_signo, info.si_code > 0  # positive: the kernel sent it, not a process
    number = signal.sigwait(watched)
    return number, number == signal.SIGINT and sys.stdin.isatty()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
