"""Handles the Quiet, Stop and Dump buttons of Sidekiq's Web UI.

Sidekiq kills itself with the signal that it finds in Redis (``launcher.rb``).
A worker process of the ``dramatiq`` command has a master that would replace
it, so Stop stops the master, which stops all its workers gracefully.  A worker
inside another program is *embedded*: its parent process belongs to that program.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Protocol

from dramatiq.logging import get_logger

_logger = get_logger(__name__)


class Quietable(Protocol):
    def stop_fetching(self) -> None: ...


class Master:
    """The ``dramatiq`` command that a worker process belongs to.

    Dramatiq emits ``process_boot`` in its worker processes and nowhere else
    (``cli.py``, ``worker_process``), so :meth:`booted` is called from that hook.
    """

    def __init__(self) -> None:
        self._worker_pid = 0
        self._pid = 0

    def booted(self) -> None:
        """Note that this process is a worker process of its parent."""
        self._worker_pid, self._pid = os.getpid(), os.getppid()

    @property
    def pid(self) -> int | None:
        """The process id of the command.

        None in a worker inside another program, in a child that it forked, and
        once the command has ended: another process may then have its id.
        """
        if self._worker_pid == os.getpid() and self._pid == os.getppid():
            return self._pid
        return None

    def stop(self) -> None:
        """Stop the command; does nothing in a worker inside another program."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)


def handle_signal(name: str, broker: Quietable, master: int | None) -> None:
    """Handle a signal of the Web UI: ``TSTP``, ``TERM`` or ``TTIN``.

    Parameters:
      master: The process id of the ``dramatiq`` command; None in another program.
    """
    act: dict[str, Callable[[], None]] = {
        "TSTP": broker.stop_fetching,
        "TERM": lambda: _terminate(master),
        "TTIN": dump,
    }
    if name not in act:
        _logger.warning("Signal %r is not known: TSTP, TERM and TTIN are.", name)
        return
    _logger.info("Signal %s, sent through Redis.", name)
    act[name]()


def _terminate(master: int | None) -> None:
    if master is None:
        _logger.warning("This worker runs inside another program, and is not stopped through Redis. Stop the program.")
    elif master != os.getppid():
        _logger.warning("The dramatiq command that started this process is gone, so nothing is stopped.")
    else:
        os.kill(master, signal.SIGTERM)


def dump() -> None:
    """Log the stack of each thread (``cli.rb``, the handler of TTIN)."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        _logger.warning("Thread %s (%s)\n%s", names.get(ident, "?"), ident, stack)
