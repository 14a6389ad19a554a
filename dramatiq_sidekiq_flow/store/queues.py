"""Queues, and the jobs in flight that came from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import WrongType
from . import keys, scripts
from .connection import Connection
from .producers import producers
from .scripts import Argument, Command


def push(connection: Connection, queue: str, payloads: Sequence[bytes]) -> None:
    """Enqueue payloads, the first one to be taken first (``client.rb``, ``atomic_push``).

    Raises:
      redis.ResponseError: if the queue's key, or ``queues``, holds another type.
      Unconfirmed: if it was done, and too few replicas have it.
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
        if reply or times > 1:
            producers.give_back(producer)
            if asked:
                connection.replicas.check(reply, asked)
            return
        # Sent once, and taken for a repetition: another process has the same
        # producer (a copy of a running machine). Push as a new one.


#: What :func:`fetch` gives back for a paused queue.
PAUSED = "paused"


#: Bytes, beside the first job, after which one fetch takes no further one.
MAX_FETCH_BYTES = 1024 * 1024


def fetch(
    connection: Connection, member: str, queue: str, base: str, count: int, *, free: int = 0, burst: bool = False
) -> list[tuple[str, bytes]] | str | None:
    """Move up to ``count`` payloads into flight.

    Safe to repeat with the same base.

    Parameters:
      free: How many of them begin at once, because threads are idle.
      burst: Jobs end faster than each could be marked as begun.

    Returns:
      Receipts (see :func:`keys.parse_receipt`) and payloads, or None when the
      member must beat first, or :data:`PAUSED`.

    Raises:
      WrongType: if the queue or the in-flight hash is of another type.
    """
    reply = connection.call(
        *scripts.FETCH.command(
            (keys.queue(queue), keys.in_flight(member), keys.WORKERS, keys.PAUSED),
            (member, base, count, free, "1" if burst else "", MAX_FETCH_BYTES),
        )
    )
    if reply is None:
        return None
    if reply[0] == b"TYPE":
        raise WrongType(f"The Redis key {reply[1].decode()!r} holds another type. Remove it.", reply[1])
    if len(reply) == 1:
        return PAUSED
    lengths, joined, begun, suffix = reply
    jobs, start, state = [], 0, suffix.decode()
    for index, length in enumerate(map(int, lengths.split()), 1):
        end = start + length
        jobs.append((f"{base}:{index}" if index <= begun else f"{base}:{index}{state}", joined[start:end]))
        start = end
    return jobs


def wait(connection: Connection, queue: str, seconds: float) -> bool:
    """Block until a queue has an element, and leave the queue as it was.

    ``BLMOVE`` of a list's end onto itself: the element has no second place
    where a crash could leave it.

    Returns:
      False if the time passed first.
    """
    name = keys.queue(queue)
    return connection.call("BLMOVE", name, name, "RIGHT", "RIGHT", f"{seconds:.3f}") is not None


def length(connection: Connection, queue: str) -> int:
    """How many jobs wait in a queue."""
    count: int = connection.call("LLEN", keys.queue(queue))
    return count


def done(member: str, receipts: Sequence[str]) -> Command:
    """The command that takes finished jobs without a workflow out of flight."""
    return ("HDEL", keys.in_flight(member), *receipts)


def requeue(connection: Connection, member: str, queue: str, receipts: Sequence[str | bytes]) -> int:
    """Put jobs in flight back, to be taken next, in the order of the receipts."""
    moved: int = connection.call(*scripts.REQUEUE.command((keys.in_flight(member), keys.queue(queue)), receipts))
    return moved


def in_flight(connection: Connection, member: str) -> dict[str, bytes]:
    """Receipt -> payload of all that a member has in flight."""
    reply: Any = connection.call("HGETALL", keys.in_flight(member))
    if not isinstance(reply, dict):  # RESP2 answers with a flat list
        reply = dict(zip(reply[::2], reply[1::2]))
    return {receipt.decode(): payload for receipt, payload in reply.items()}


def unfinished(connection: Connection, queue: str) -> tuple[int, list[bytes]]:
    """Count the jobs that are left to do, all at one instant.

    Returns:
      The number of jobs of the queue, waiting or in flight anywhere, plus the
      number of fan-outs that are still to be pushed to any queue; and all
      members of ``schedule`` and ``retry``, of any queue.
    """
    mine: list[str] = []
    while True:
        # One transaction: a job that moves between two looks would be seen in neither.
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
        # A worker that was not looked at may have fetched from the queue.
        mine = consumers


def _consumers(members: Any, queue: str) -> list[str]:
    """The registered members of a queue."""
    readable = keys.readable(members)
    return [member for member in readable if keys.is_member(member) and keys.queue_of(member) == queue]


def _list(reply: Any) -> list[bytes]:
    return reply if isinstance(reply, list) else []


def clear(connection: Connection, queue: str) -> None:
    """Drop what waits in a queue (``api.rb``, ``Queue#clear``)."""
    connection.send([("UNLINK", keys.queue(queue)), ("SREM", keys.QUEUES, queue)])


def pause(connection: Connection, queue: str) -> None:
    """Stop all fetches from a queue (Sidekiq Pro's ``Queue#pause!``)."""
    connection.call("SADD", keys.PAUSED, queue)


def unpause(connection: Connection, queue: str) -> None:
    """Let a queue be fetched from again."""
    connection.call("SREM", keys.PAUSED, queue)
