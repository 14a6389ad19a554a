"""What a person's Quiet, Stop and Dump in Sidekiq's Web UI do to this process.

Sidekiq kills itself with the signal that it finds in Redis (``launcher.rb``).
A worker process of the ``dramatiq`` command has a master that would replace
it, so Stop stops the master, which stops all its workers gracefully.  A worker
inside another program is *embedded*: its parent is somebody else's.
"""

from __future__ import annotations

import multiprocessing
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


def master() -> int | None:
    """The process id of the ``dramatiq`` command that this worker process belongs to.

    None anywhere else.  The sure sign is that Dramatiq's own function of a
    worker process is running in the main thread; a program that only starts a
    Worker, be it in a child process, never shows it.
    """
    cli = sys.modules.get("dramatiq.cli")
    parent = multiprocessing.parent_process()
    main = threading.main_thread().ident
    if cli is None or parent is None or parent.pid != os.getppid() or main is None:
        return None
    code = cli.worker_process.__code__
    frame = sys._current_frames().get(main)
    while frame is not None:
        if frame.f_code is code:
            return parent.pid
        frame = frame.f_back
    return None


def obey(name: str, broker: Quietable, belongs_to: int | None) -> None:
    """Do what a signal asks for: ``TSTP``, ``TERM`` or ``TTIN``."""
    act: dict[str, Callable[[], None]] = {
        "TSTP": broker.stop_fetching,
        "TERM": lambda: _terminate(belongs_to),
        "TTIN": dump,
    }
    if name not in act:
        _logger.warning("Signal %r is not known: TSTP, TERM and TTIN are.", name)
        return
    _logger.info("Signal %s, sent through Redis.", name)
    act[name]()


def _terminate(belongs_to: int | None) -> None:
    if belongs_to is None:
        _logger.warning("This worker runs inside another program, and is not stopped through Redis. Stop the program.")
    elif belongs_to != os.getppid():
        _logger.warning("The dramatiq command that started this process is gone, so nothing is stopped.")
    else:
        os.kill(belongs_to, signal.SIGTERM)


def stop_process() -> None:
    """Stop the dramatiq command that this worker process belongs to; nothing elsewhere."""
    belongs_to = master()
    if belongs_to is not None:
        os.kill(belongs_to, signal.SIGTERM)


def dump() -> None:
    """Log where each thread is (``cli.rb``, the handler of TTIN)."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        _logger.warning("Thread %s (%s)\n%s", names.get(ident, "?"), ident, stack)
