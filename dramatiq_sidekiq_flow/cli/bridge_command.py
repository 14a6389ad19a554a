"""Command ``bridge``: runs the bridge in a separate process."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterable
from typing import Any

from ..broker import SidekiqBroker
from ..errors import ConfigurationError
from ..foreign.bridge import Bridge
from ..foreign.foreign_broker import ForeignSidekiqBroker


def run(broker: SidekiqBroker, queues: Iterable[str] | None = None) -> None:
    """Run the bridge until SIGTERM or SIGINT.

    Raises:
      ConfigurationError: if it is a SidekiqBroker, whose workers fetch from Sidekiq's queues themselves.
    """
    if not isinstance(broker, ForeignSidekiqBroker):
        raise ConfigurationError("A SidekiqBroker needs no bridge: its workers fetch from Sidekiq's queues.", broker)
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] [%(levelname)s] %(message)s")
    ended = threading.Event()

    def end(*_: Any) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    bridge = Bridge(broker)
    bridge.start(queues)
    bridge.logger.info("Bridging %s from %s.", ", ".join(sorted(bridge.queues)) or "nothing", broker.connection.url)
    while not ended.wait(1.0):
        pass
    bridge.stop()
