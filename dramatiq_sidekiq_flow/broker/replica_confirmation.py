"""Confirmation of acknowledgements by replicas.

Each round trip waits for the replicas once, for all its jobs.  If too few confirm,
the worker continues: the jobs are done, and the primary has that.  It asks again
after ten times as long as it has waited, so that missing replicas cost a worker at
most a tenth of its time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from dramatiq.logging import get_logger

from ..process.events import Events, Unreplicated
from ..process.log_limit import LogLimit
from ..store.connection import LOST
from ..store.replication import ReplicaWait, Shortage
from ..store.scripts import Command

#: After a round trip that too few replicas confirmed, how many times as long as
#: it waited the next ones do not wait.
PATIENCE = 10


class ReplicaConfirmation:
    """Asks the replicas with each round trip, and reports a shortage.

    Parameters:
      replicas: How many replicas must confirm what is sent.
      events: Notified if too few do.
    """

    def __init__(self, replicas: ReplicaWait, events: Events) -> None:
        self.logger = get_logger(__name__, type(self))
        self._replicas = replicas
        self._events = events
        self._log_limit = LogLimit()
        #: The last shortage of replicas, and when to ask again (monotonic).
        self._shortage: Shortage | None = None
        self._ask_again = 0.0

    def commands(self) -> Sequence[Command]:
        """Get the commands that ask the replicas, to be sent behind the others; none if they are not asked now."""
        if not self._replicas.wanted or (self._shortage is not None and time.monotonic() < self._ask_again):
            return ()
        return self._replicas.commands

    def check(self, replies: Sequence[Any], asked: Sequence[Any]) -> None:
        """Look whether enough replicas confirm, if the primary has accepted everything.

        Parameters:
          replies: The replies of the other commands.
          asked: The replies of :meth:`commands`; empty if they were not asked.
        """
        if self._replicas.wanted and not any(isinstance(reply, LOST) for reply in replies):
            self._look(asked)

    def _look(self, asked: Sequence[Any]) -> None:
        """Log when too few replicas confirm what was sent, and when enough do again."""
        before, shortage = self._shortage, self._shortage
        if asked:
            shortage = self._shortage = self._replicas.shortage(asked)
            self._ask_again = time.monotonic() + PATIENCE * self._replicas.timeout / 1000
        if shortage is not None:
            self._report(shortage)
        elif before is not None:
            self.logger.info("Acknowledgements are confirmed by enough replicas again.")

    def _report(self, shortage: Shortage) -> None:
        if self._log_limit.allows("replicas"):
            self.logger.warning(
                "Acknowledgements are confirmed by %s. The worker continues; if Redis fails over now, finished jobs "
                "run again. Check the replicas.",
                shortage,
            )
        self._events.emit(Unreplicated(shortage))
