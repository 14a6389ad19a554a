"""Queues, and the jobs in flight that came from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from . import keys, scripts
from .connection import Connection
from .outcomes import wrong_type
from .producers import producers
from .replication import Unconfirmed
from .scripts import Argument, Command


def push(connection: Connection, queue: str, payloads: Sequence[bytes]) -> None:
    """Enqueue payloads; the first one is fetched first (``client.rb``, ``atomic_push``).

    Raises:
      redis.ResponseError: if the queue's key, or ``queues``, holds another type.
      Unconfirmed: if the jobs are pushed, but too few replicas confirm it.
    """
    _push(connection, keys.queue(queue), (queue, *payloads))


def schedule(connection: Connection, at: float, payload: bytes) -> None:
    """Put a payload into ``schedule``, due at epoch seconds ``at``."""
    _push(connection, keys.SCHEDULE, ("", repr(at), payload))


def _push(connection: Connection, key: str, arguments: Sequence[Argument]) -> None:
    while True:
        producer = producers.take()
        command = scripts.PUSH.command((producer.key, keys.QUEUES, key), (producer.next(), *arguments))
        (reply, *asked), times = connection.send_counted((command, *connection.replicas.commands))
        if isinstance(reply, Exception):
            raise reply
        if _is_made(reply, times):
            producers.give_back(producer)
            if asked:
                connection.replicas.check(reply, asked)
            return


def _is_made(reply: int, times: int) -> bool:
    """Read the reply to a push.

    If it is not made, push again under a new producer: sent once, but refused as a
    repetition, it has the producer id of another process (a cloned machine). Or the
    server has forgotten the producer, after an hour without a push.

    Parameters:
      times: How often the push was sent.
    """
    return reply > 0 or (reply == 0 and times > 1)


@attrs.frozen
class Batch:
    """Payloads that one script call pushes.

    Attributes:
      queue: Their queue; "" for ``schedule``.
      at: For ``schedule``: epoch seconds at which they are due.
    """

    queue: str
    payloads: Sequence[bytes]
    at: float = 0.0

    @property
    def key(self) -> str:
        """The key that they are pushed to."""
        return keys.queue(self.queue) if self.queue else keys.SCHEDULE

    @property
    def arguments(self) -> Iterable[Argument]:
        """The arguments of the script, after the number of the push."""
        if self.queue:
            return (self.queue, *self.payloads)
        score = repr(self.at)
        return ("", *(part for payload in self.payloads for part in (score, payload)))


@attrs.frozen
class Pushed:
    """Result of :func:`push_all`.

    Attributes:
      count: How many batches are in Redis, from the first on.
      error: The error that kept the others back; with an Unconfirmed, all are in Redis.
    """

    count: int
    error: Exception | None = None


def push_all(connection: Connection, batches: Sequence[Batch]) -> Pushed:
    """Push batches in one write, in their order; those after a failed one are not pushed.

    Raises:
      redis.ConnectionError, redis.TimeoutError: if Redis cannot be reached; each
        batch may be there or not.
    """
    left = list(enumerate(batches))
    while True:
        producer = producers.take()
        commands = [
            scripts.PUSH.command((producer.key, keys.QUEUES, batch.key), (producer.next(), *batch.arguments))
            for _, batch in left
        ]
        replies, times = connection.send_counted((*commands, *connection.replicas.commands))
        refused: list[tuple[int, Batch]] = []
        for (index, batch), reply in zip(left, replies):
            if isinstance(reply, Exception):
                return Pushed(refused[0][0] if refused else index, reply)
            if not _is_made(reply, times):
                refused.append((index, batch))
        if not refused:
            producers.give_back(producer)
            return Pushed(len(batches), _shortage(connection, replies[len(commands) :]))
        left = refused


def _shortage(connection: Connection, asked: Sequence[Any]) -> Unconfirmed | None:
    """The error of commands that too few replicas confirm; None if enough do."""
    try:
        if asked:
            connection.replicas.check(None, asked)
    except Unconfirmed as e:
        return e
    return None


#: Result of :func:`fetch` for a paused queue.
PAUSED = "paused"


#: Maximum bytes of one fetch, besides the first job.
MAX_FETCH_BYTES = 1024 * 1024


#: Receipts (see :func:`keys.parse_receipt`) and payloads; None if the member must beat
#: first; or :data:`PAUSED`.
Fetched = list[tuple[str, bytes]] | str | None


@attrs.frozen
class Fetch:
    """One fetch: moves up to ``count`` payloads into flight.  Safe to repeat with the same base.

    Attributes:
      free: Number of jobs that begin at once, because threads are idle.
      burst: True if jobs end faster than each could be marked as begun.
    """

    member: str
    queue: str
    base: str
    count: int
    free: int = 0
    burst: bool = False

    @property
    def command(self) -> Command:
        """The command that runs it."""
        return scripts.FETCH.command(
            (
                keys.queue(self.queue),
                keys.in_flight(self.member),
                keys.WORKERS,
                keys.PAUSED,
                keys.arrived(self.queue),
            ),
            (self.member, self.base, self.count, self.free, "1" if self.burst else "", MAX_FETCH_BYTES),
        )

    def read(self, reply: Any) -> Fetched:
        """Read the reply to the command.

        Raises:
          WrongType: if the queue or the in-flight hash holds another type.
        """
        if reply is None:
            return None
        if reply[0] == b"TYPE":
            raise wrong_type(reply[1])
        if len(reply) == 1:
            return PAUSED
        lengths, joined, begun, suffix = reply
        jobs, start, state = [], 0, suffix.decode()
        for index, length in enumerate(map(int, lengths.split()), 1):
            end = start + length
            receipt = f"{self.base}:{index}"
            jobs.append((receipt if index <= begun else receipt + state, joined[start:end]))
            start = end
        return jobs


def fetch(
    connection: Connection, member: str, queue: str, base: str, count: int, *, free: int = 0, burst: bool = False
) -> Fetched:
    """Move up to ``count`` payloads into flight; see :class:`Fetch`.

    Raises:
      WrongType: if the queue or the in-flight hash holds another type.
    """
    fetch = Fetch(member, queue, base, count, free, burst)
    return fetch.read(connection.call(*fetch.command))


def wait(connection: Connection, queue: str, seconds: float) -> bool:
    """Block until a queue has an element, and leave the queue as it was.

    Sends ``BLMOVE`` from the end of the list to the same end, so the element
    never leaves the list, and a crash cannot lose it.

    Returns:
      False if the time passed first.
    """
    name = keys.queue(queue)
    return connection.call("BLMOVE", name, name, "RIGHT", "RIGHT", f"{seconds:.3f}") is not None


def length(connection: Connection, queue: str) -> int:
    """Count the jobs that wait in a queue."""
    count: int = connection.call("LLEN", keys.queue(queue))
    return count


def done(member: str, receipts: Sequence[str]) -> Command:
    """Make the command that takes finished jobs without a workflow out of flight."""
    return ("HDEL", keys.in_flight(member), *receipts)


def requeue(connection: Connection, member: str, queue: str, receipts: Sequence[str | bytes]) -> int:
    """Move jobs in flight back to the head of their queue, in the order of the receipts; return their number."""
    moved: int = connection.call(*scripts.REQUEUE.command((keys.in_flight(member), keys.queue(queue)), receipts))
    return moved


def in_flight(connection: Connection, member: str) -> dict[str, bytes]:
    """Read all jobs that a member has in flight: receipt -> payload."""
    reply: Any = connection.call("HGETALL", keys.in_flight(member))
    if not isinstance(reply, dict):  # RESP2 answers with a flat list
        reply = dict(zip(reply[::2], reply[1::2]))
    return {receipt.decode(): payload for receipt, payload in reply.items()}


def unfinished(connection: Connection, queue: str) -> tuple[int, list[bytes]]:
    """Count the jobs that are left to do, in one transaction.

    Returns:
      The number of jobs of the queue, waiting or in flight anywhere, plus the
      number of fan-outs that are still to be pushed to any queue; and all
      members of ``schedule`` and ``retry``, of any queue.
    """
    mine: list[str] = []
    while True:
        # One transaction, since a job that moves between two reads would be in neither.
        replies = connection.send(
            [
                ("MULTI",),
                ("ZRANGE", keys.WORKERS, 0, -1),
                ("ZRANGE", keys.SCHEDULE, 0, -1),
                ("ZRANGE", keys.RETRY, 0, -1),
                ("ZCARD", keys.FANOUTS),
                ("LLEN", keys.queue(queue)),
                *(("HLEN", keys.in_flight(member)) for member in mine),
                ("EXEC",),
            ]
        )
        members, scheduled, retried, *counts = replies[-1]
        consumers = _consumers(members, queue)
        if set(consumers) <= set(mine):
            # A key of another type counts as empty.
            later = [*_list(scheduled), *_list(retried)]
            return sum(count for count in counts if isinstance(count, int)), later
        # A worker that was not read may have fetched from the queue: read again.
        mine = consumers


def _consumers(members: Any, queue: str) -> list[str]:
    """Select the registered members of a queue."""
    readable = keys.readable(members)
    return [member for member in readable if keys.is_member(member) and keys.queue_of(member) == queue]


def _list(reply: Any) -> list[bytes]:
    return reply if isinstance(reply, list) else []


def clear(connection: Connection, queue: str) -> None:
    """Delete the jobs that wait in a queue (``api.rb``, ``Queue#clear``)."""
    connection.send([("UNLINK", keys.queue(queue)), ("SREM", keys.QUEUES, queue)])


def pause(connection: Connection, queue: str) -> None:
    """Stop all fetches from a queue (Sidekiq Pro's ``Queue#pause!``)."""
    connection.call("SADD", keys.PAUSED, queue)


def unpause(connection: Connection, queue: str) -> None:
    """Allow fetches from a queue again."""
    connection.call("SREM", keys.PAUSED, queue)
