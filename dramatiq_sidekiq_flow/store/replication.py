"""Replication: ``WAIT`` for replicas after commands that push or acknowledge jobs.

``WAIT`` refers to the last write of its own connection.  A command that is
repeated after a lost reply may have nothing left to write, so a mark is
written right before each ``WAIT``: replicas apply writes in order, and one that
has the mark has all earlier writes, of any connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from ..errors import ConfigurationError, NotReplicated
from . import keys
from .faults import ServerUnavailable, is_of_the_connection
from .scripts import Command

#: TTL of the mark, in seconds.
_MARK_TTL = 86_400

#: The mark: any command that writes each time.
_MARK: Command = ("SET", keys.REPLICATED, "1", "EX", _MARK_TTL)


def _checked(least: int) -> Any:
    def check(instance: Any, attribute: attrs.Attribute[int], value: Any) -> None:
        if type(value) is not int or value < least:
            raise ConfigurationError(
                f"Replication({attribute.name}=...) must be a whole number, {least} or more, not {value!r}.", value
            )

    return check


@attrs.frozen
class Replication:
    """Numbers of replicas that must confirm a write.

    Examples:

      >>> SidekiqBroker(url="redis://localhost:6379/0", replication=Replication(push=1))

    Parameters:
      push: Replicas that must confirm a job or a run before ``send()`` or
        ``run()`` returns; 0 does not wait.  With fewer, they raise NotReplicated.
      acknowledge: Replicas that must confirm the acknowledgement of a job and
        the next steps; 0 does not wait.  With fewer, a worker logs a warning
        and continues.
      timeout: Milliseconds to wait for them.

    Raises:
      ConfigurationError: if a number is negative, or the timeout is 0 (Redis would wait for ever).
    """

    push: int = attrs.field(default=1, validator=_checked(0))
    acknowledge: int = attrs.field(default=1, validator=_checked(0))
    timeout: int = attrs.field(default=1_000, validator=_checked(1))


#: Does not wait for replicas.
OFF = Replication(push=0, acknowledge=0)


@attrs.frozen
class Shortage:
    """Too few replicas confirmed a write.

    Attributes:
      wanted, got: Numbers of replicas.
      timeout: Milliseconds that Redis waited.
      reason: The error of Redis, if it did not count them.
    """

    wanted: int
    got: int
    timeout: int
    reason: str = ""

    def __str__(self) -> str:
        counted = f"{self.got} of {self.wanted} replicas within {self.timeout} ms"
        return f"{counted} ({self.reason[:200]})" if self.reason else counted


class Unconfirmed(Exception):
    """A command was executed, but too few replicas confirmed it.

    Attributes:
      reply: The reply to the command.
      shortage: The numbers of replicas.
    """

    def __init__(self, reply: Any, shortage: Shortage) -> None:
        super().__init__(str(shortage))
        self.reply = reply
        self.shortage = shortage

    def of_job(self, jid: str) -> NotReplicated:
        """Make the error for the sender of a job."""
        return self._error(f"The job {jid}", "It will run: do not send it again, or it runs twice.", jid)

    def of_jobs(self, jids: Sequence[str]) -> NotReplicated:
        """Make the error for the sender of several jobs."""
        subject = f"The jobs {jids[0]} to {jids[-1]}, the last {len(jids)} sent,"
        return self._error(subject, "They will run: do not send them again, or they run twice.", jids[-1], "are")

    def of_run(self, run_id: str) -> NotReplicated:
        """Make the error for the caller who started a run."""
        cure = (
            "It continues: do not start it as a new run. run() with this run id waits again, and starts it if it is "
            "missing."
        )
        return self._error(f"The run {run_id}", cure, run_id)

    def _error(self, subject: str, cure: str, value: str, verb: str = "is") -> NotReplicated:
        it = "it" if verb == "is" else "them"
        return NotReplicated(
            f"{subject} {verb} in Redis, but confirmed by {self.shortage}. {cure} Until a replica has {it}, a failover "
            f"loses {it}: see INFO replication for the state of the replicas.",
            value,
            wanted=self.shortage.wanted,
            got=self.shortage.got,
        )


@attrs.frozen
class ReplicaWait:
    """Asks after other commands how many replicas have their writes.

    Parameters:
      wanted: Number of replicas to wait for; 0 does not ask.
      timeout: Milliseconds to wait for them.
    """

    wanted: int
    timeout: int
    #: Commands to append to the others, in the same write; none if ``wanted`` is 0.
    commands: tuple[Command, ...] = attrs.field(init=False)

    @commands.default
    def _commands(self) -> tuple[Command, ...]:
        return (_MARK, ("WAIT", self.wanted, self.timeout)) if self.wanted else ()

    def shortage(self, replies: Sequence[Any]) -> Shortage | None:
        """Read the replies to :attr:`commands`; None if enough replicas confirmed."""
        for reply in replies:
            if isinstance(reply, Exception):
                return Shortage(self.wanted, 0, self.timeout, str(reply))
        got = int(replies[-1])
        return None if got >= self.wanted else Shortage(self.wanted, got, self.timeout)

    def check(self, reply: Any, asked: Sequence[Any]) -> None:
        """Check that enough replicas confirmed a command.

        Parameters:
          reply: The reply to the command.
          asked: The replies to :attr:`commands`.

        Raises:
          Unconfirmed: if too few did.
          ServerUnavailable: if the server has become a replica, which may lose
            its latest writes.
        """
        for answer in asked:
            if isinstance(answer, ServerUnavailable) and is_of_the_connection(answer.reply):
                raise answer
        shortage = self.shortage(asked)
        if shortage is not None:
            raise Unconfirmed(reply, shortage)


def question_in(commands: Sequence[Command]) -> range:
    """Indexes of the :attr:`ReplicaWait.commands` at the end of a list of commands; empty if there are none."""
    count = len(commands)
    if commands[-1][0] != "WAIT":
        return range(0)
    return range(count - 2, count)


#: Does not ask.
NO_WAIT = ReplicaWait(0, 0)
