"""A terminal of a width, and what a program shows on it."""

from __future__ import annotations

import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from typing import NoReturn

from dramatiq_sidekiq_flow.cli.main import main

#: Colours, movements of the cursor, and what else a terminal does not show.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")

#: Erases a line: a live display does it before it draws the next frame.
_ERASE = "\x1b[2K"


class Screen:
    """A terminal, to run one command in."""

    def __init__(self, width: int, height: int = 45) -> None:
        self.width, self.height = width, height
        self._output = b""

    def run(self, words: Sequence[str], url: str, is_live: bool = False) -> int:
        """Run ``sidekiq-flow`` with these words to its end in a child, and return its exit code.

        Parameters:
          is_live: The command does not end: it is interrupted when it draws its second frame.
        """
        child, terminal = pty.fork()
        if not child:
            _run_in_child(words, {"REDIS_URL": url, "TERM": "xterm-256color", "COLUMNS": str(self.width)})
        ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", self.height, self.width, 0, 0))
        while data := _read(terminal):
            self._output += data
            if is_live and _ERASE.encode() in self._output:
                os.kill(child, signal.SIGINT)
                is_live = False
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def text(self) -> str:
        """Return the lines of the last frame, without colours."""
        last = self._output.decode().split(_ERASE)[-1]
        lines = _CONTROL.sub("", last).split("\n")
        return "\n".join(line.rstrip() for line in lines).rstrip()


def _run_in_child(words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    code = 1
    try:
        os.environ.update(environment)
        code = main(words)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # The program has closed the terminal.
        return b""
