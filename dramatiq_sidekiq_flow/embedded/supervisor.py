"""Supervisor process of an embedded server: stops the server when its owner ends.

The owner (``server.py``) runs this file by its path, isolated, so that it starts
in a few milliseconds: it imports only the standard library.

Why a process in between: no handler of the owner runs after ``kill -9``.  The
owner holds the only writing end of our standard input and never writes to it.
The kernel closes that end however the owner dies, and at end-of-file we stop
the server and remove its directory.  A parent-death signal from the owner would
do less: Linux sends it when the *thread* that started the child ends, and other
systems do not have it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

#: Seconds that a server has to stop after SIGTERM, before it is killed.
GRACE = 5.0

_PR_SET_PDEATHSIG = 1


def main(directory: str, *command: str) -> int:
    """Run a server until it or standard input ends, then remove its directory.

    Parameters:
      directory: Directory to remove at the end.
      command: The server's command line.

    Returns:
      The server's exit code, or the negative number of the signal that ended it.
    """
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_supervisor())
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        threading.Thread(target=_stop_at_end_of_file, args=(server,), daemon=True).start()
        return server.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _die_with_supervisor() -> Callable[[], object] | None:
    # For the case that this process is killed as well. Linux only.
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _stop_at_end_of_file(server: subprocess.Popen[bytes]) -> None:
    # Not sys.stdin: its lock, held by this thread, would abort the interpreter's exit.
    while os.read(0, 1):
        pass
    server.terminate()
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.exit(code if code >= 0 else 128 - code)
