"""How many replicas must have what was written: ``WAIT``, behind what makes or ends jobs.

``WAIT`` speaks of the last write of its own connection.  A command that is
repeated after a lost reply may find all done and write nothing, so a mark is
written right before each ``WAIT``: replicas apply writes in order, and one that
has the mark has all that came before it, from whatever connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from ..errors import ConfigurationError, NotReplicated
from . import keys
from .faults import ServerUnavailable, is_of_the_connection
from .scripts import Command

#: Seconds that the mark lives.
_MARK_TTL = 86_400

#: The mark.  Any write will do, as long as it is one each time.
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
    """How many replicas must have a write before it counts as made.

    Examples:

      >>> SidekiqBroker(url="redis://localhost:6379/0", replication=Replication(push=1))

    Parameters:
      push: Replicas that must have a job or a run before ``send()`` or ``run()``
        returns; 0 does not wait.  With fewer, they raise NotReplicated.
      acknowledge: Replicas that must have the acknowledgement of a job, and what
        follows it; 0 does not wait.  With fewer, a worker says so and goes on.
      timeout: Milliseconds to wait for them.

    Raises:
      ConfigurationError: for a negative number, or no time at all (Redis would wait for ever).
    """

    push: int = attrs.field(default=1, validator=_checked(0))
    acknowledge: int = attrs.field(default=1, validator=_checked(0))
    timeout: int = attrs.field(default=1_000, validator=_checked(1))


#: No waiting.
OFF = Replication(push=0, acknowledge=0)


@attrs.frozen
class Shortage:
    """Fewer replicas than wanted have confirmed a write.

    Attributes:
      wanted, got: Numbers of replicas.
      timeout: Milliseconds that were waited.
      reason: What Redis said, where it did not count them.
    """

    wanted: int
    got: int
    timeout: int
    reason: str = ""

    def __str__(self) -> str:
        counted = f"{self.got} of {self.wanted} replicas within {self.timeout} ms"
        return f"{counted} ({self.reason[:200]})" if self.reason else counted


class Unconfirmed(Exception):
    """A command was carried out, and too few replicas have confirmed it.

    Attributes:
      reply: The command's.
      shortage: How many have, and how many should.
    """

    def __init__(self, reply: Any, shortage: Shortage) -> None:
        super().__init__(str(shortage))
        self.reply = reply
        self.shortage = shortage

    def of_job(self, jid: str) -> NotReplicated:
        """The error for who sent a job."""
        return self._error(f"The job {jid}", "It will run: do not send it again, or it runs twice.", jid)

    def of_run(self, run_id: str) -> NotReplicated:
        """The error for who started a run."""
        cure = (
            "It goes on: do not start it as a new run. run() with this run id waits again, and starts it where it is "
            "missing."
        )
        return self._error(f"The run {run_id}", cure, run_id)

    def _error(self, what: str, cure: str, value: str) -> NotReplicated:
        return NotReplicated(
            f"{what} is in Redis, but confirmed by {self.shortage}. {cure} Until a replica has it, a failover loses "
            "it: see INFO replication for the state of the replicas.",
            value,
            wanted=self.shortage.wanted,
            got=self.shortage.got,
        )


@attrs.frozen
class ReplicaWait:
    """Asks, behind other commands, how many replicas have what they wrote.

    Parameters:
      wanted: How many should; 0 does not ask.
      timeout: Milliseconds to wait for them.
    """

    wanted: int
    timeout: int
    #: To be sent behind the others, in the same write; none where nothing is asked.
    commands: tuple[Command, ...] = attrs.field(init=False)

    @commands.default
    def _commands(self) -> tuple[Command, ...]:
        return (_MARK, ("WAIT", self.wanted, self.timeout)) if self.wanted else ()

    def shortage(self, replies: Sequence[Any]) -> Shortage | None:
        """What the replies to :attr:`commands` say; None where enough replicas have all."""
        for reply in replies:
            if isinstance(reply, Exception):
                return Shortage(self.wanted, 0, self.timeout, str(reply))
        got = int(replies[-1])
        return None if got >= self.wanted else Shortage(self.wanted, got, self.timeout)

    def check(self, reply: Any, asked: Sequence[Any]) -> None:
        """See that enough replicas have what a command wrote.

        Parameters:
          reply: The command's.
          asked: The replies to :attr:`commands`.

        Raises:
          Unconfirmed: if they do not.
          ServerUnavailable: if the server is a replica by now, which may lose
            what it had before.
        """
        for answer in asked:
            if isinstance(answer, ServerUnavailable) and is_of_the_connection(answer.reply):
                raise answer
        shortage = self.shortage(asked)
        if shortage is not None:
            raise Unconfirmed(reply, shortage)


def question_in(commands: Sequence[Command]) -> range:
    """Where the :attr:`ReplicaWait.commands` stand among others, at their end; empty where there are none."""
    count = len(commands)
    return range(count - 2, count) if commands[-1][0] == "WAIT" else range(0)


#: Asks nothing.
NO_WAIT = ReplicaWait(0, 0)
