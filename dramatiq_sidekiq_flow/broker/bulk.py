"""Sends many jobs of one broker with few commands."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Protocol, TypeVar

from dramatiq import Middleware

from ..context import current_job
from ..errors import FlowError
from ..store.parts import PARTS_AT_ONCE, slices
from ..store.queues import Batch
from ..store.replication import Unconfirmed
from ..wire import codec
from ..wire.payload import DEFAULTS, Payload
from ..wire.payload_frame import END, PayloadFrame
from .bulk_errors import naming, telling
from .bulk_messages import CheckedMessages, Jobs, Message, checked_messages
from .bulk_recipe import Recipe
from .enqueue_hooks import EnqueueHooks
from .message import check_not_itself, mark_sent, to_fields
from .sender import Sender, is_later
from .sent_messages import BLOCK, SentMessages

T = TypeVar("T")


class Enqueuer(Protocol):
    """The parts of a SidekiqBroker that are used here."""

    middleware: list[Middleware]
    inherit: frozenset[str]
    sender: Sender
    enqueue_hooks: EnqueueHooks

    def check_encoder(self) -> None: ...
    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None: ...
    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None: ...
    def options_of(self, actor_name: str) -> Mapping[str, Any] | None: ...


class Bulk:
    """Sends many jobs of one broker."""

    def __init__(self, broker: Enqueuer) -> None:
        self.broker = broker

    def send(self, recipe: Recipe, items: Iterable[Any], delay: timedelta | int | None) -> SentMessages[Any]:
        """Send a job for each item; see :func:`send_many.send_many`."""
        if isinstance(delay, timedelta):
            delay = int(delay.total_seconds() * 1000)
        kept = tuple(items) if isinstance(items, (list, tuple)) else None
        sent: SentMessages[Any] = SentMessages(recipe.message, kept)
        with telling(sent):
            chunks = _chunks(items if kept is None else kept, BLOCK)
            if recipe.template is not None and not self._sees_messages():
                self._send_frame(recipe, recipe.template, chunks, kept is not None, delay, sent)
            else:
                if kept is not None:
                    _check_all(_encoded(recipe, _chunks(kept, BLOCK), 0))
                self._send_messages(recipe, chunks, delay, sent)
        return sent

    def enqueue(self, messages: Iterable[Message], delay: int | None) -> list[Message]:
        """Push messages; see :meth:`SidekiqBroker.enqueue_many`."""
        self.broker.check_encoder()
        sent: list[Message] = []
        with telling(sent):
            whole = isinstance(messages, (list, tuple))
            chunks = self._checked(_chunks(messages, BLOCK), delay, whole)
            # Of a list, all are checked before the first one is pushed.
            for chunk, checked in list(chunks) if whole else chunks:
                first = len(sent)
                if checked is None:
                    pushes = self._push(chunk, delay, first)
                else:
                    now = time.time()
                    pushes = self._write(checked.jobs(now), now, delay)
                for pushed in pushes:
                    sent += pushed
                sent[first:] = chunk
        return sent

    # -- jobs that differ in their arguments only -----------------------------

    def _sees_messages(self) -> bool:
        """Return True if a function or a middleware takes part in each message."""
        return bool(self.broker.sender.stamps) or self.broker.enqueue_hooks.found(self.broker.middleware)

    def _send_frame(
        self,
        recipe: Recipe,
        template: Message,
        chunks: Iterator[list[Any]],
        whole: bool,
        delay: int | None,
        sent: SentMessages[Any],
    ) -> None:
        """Send jobs whose payloads have a frame in common.

        Parameters:
          whole: Whether all are encoded before the first one is pushed.
        """
        frame = PayloadFrame.of(self._fields(template, 0.0), queued=not is_later(delay))
        encoded = _encoded(recipe, chunks, len(frame.head))
        queue = "" if is_later(delay) else template.queue_name
        batches = _batches(frame, list(encoded) if whole else encoded, sent, queue, delay)
        for write in _chunks(batches, PARTS_AT_ONCE):
            pushed = self.broker.sender.push_all(write, delay)
            before = len(sent)
            sent.message_ids.add(sum(len(batch.payloads) for batch in write[: pushed.count]))
            if pushed.error is not None:
                raise _error(pushed.error, sent.message_ids, before)

    # -- messages of any kind -----------------------------------------------

    def _send_messages(
        self, recipe: Recipe, chunks: Iterator[list[Any]], delay: int | None, sent: SentMessages[Any]
    ) -> None:
        first = 0
        for chunk in chunks:
            now = time.time()
            ids = sent.allot(len(chunk), now)
            messages = []
            for index, (item, jid) in enumerate(zip(chunk, ids), first):
                with naming(index):
                    messages.append(recipe.message(item, jid.decode(), now))
            for pushed in self._push(messages, delay, first):
                sent.message_ids.add(len(pushed))
            first += len(chunk)

    def _checked(
        self, chunks: Iterable[list[Message]], delay: int | None, whole: bool
    ) -> Iterator[tuple[list[Message], CheckedMessages | None]]:
        """Check and encode chunks of messages; with None, a chunk whose messages are to be pushed one by one.

        Parameters:
          whole: Whether all are checked before the first one is pushed.
        """
        job, each = current_job(), self._sees_messages()
        first = 0
        for chunk in chunks:
            checked = None
            if not each:
                if job is not None:
                    self._check_not_itself(chunk, job, first)
                checked = checked_messages(
                    chunk, lambda message: self._fields(message, 0.0), queued=not is_later(delay)
                )
            if checked is None and whole:
                for index, message in enumerate(chunk, first):
                    self._check(message, index)
            yield chunk, checked
            first += len(chunk)

    def _push(self, messages: Sequence[Message], delay: int | None, first: int) -> Iterator[Sequence[Message]]:
        """Push messages, with their hooks; yield those that are in Redis.

        Parameters:
          first: Index of the first message, for errors.
        """
        jobs: dict[str, tuple[list[Message], list[bytes]]] = {}
        at = time.time()
        for index, message in enumerate(messages, first):
            with naming(index):
                queue, payload = self._prepare(message, delay)
            of_queue = jobs.setdefault(queue, ([], []))
            of_queue[0].append(message)
            of_queue[1].append(payload)
        for pushed in self._write(jobs, at, delay):
            for message in pushed:
                self.broker.emit_after("enqueue", message, delay)
            yield pushed

    def _write(self, jobs: Mapping[str, Jobs], at: float, delay: int | None) -> Iterator[Sequence[Message]]:
        """Push jobs; yield the messages that are in Redis."""
        for write in _chunks(_divided(jobs, at, delay), PARTS_AT_ONCE):
            pushed = self.broker.sender.push_all([batch for batch, _ in write], delay)
            done = [message for _, batch in write[: pushed.count] for message in batch]
            for message in done:
                mark_sent(message)
            yield done
            if pushed.error is not None:
                raise _error(pushed.error, [message.message_id for message in done], 0)

    def _prepare(self, message: Message, delay: int | None) -> tuple[str, bytes]:
        """Call the ``before`` hooks of a message; return its queue and payload."""
        job = current_job()
        if job is not None:
            check_not_itself(message, job)
        self.broker.emit_before("enqueue", message, delay)
        of_actor = self.broker.options_of(message.actor_name) or DEFAULTS
        queued = not is_later(delay)
        queue, payload = self.broker.sender.payload(
            message, of_actor, self.broker.inherit, queued=queued, now=time.time()
        )
        return queue if queued else "", payload

    def _fields(self, message: Message, now: float) -> dict[str, Any]:
        of_actor = self.broker.options_of(message.actor_name)
        return self.broker.sender.fields(message, of_actor or DEFAULTS, self.broker.inherit, now=now)

    def _check(self, message: Message, index: int) -> None:
        with naming(index):
            of_actor = self.broker.options_of(message.actor_name) or DEFAULTS
            codec.encode_payload(to_fields(message, of_actor, now=0.0))

    def _check_not_itself(self, messages: Sequence[Message], job: Payload, first: int) -> None:
        for index, message in enumerate(messages, first):
            with naming(index):
                check_not_itself(message, job)


def _chunks(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Divide items into lists."""
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, count)), [])


def _encoded(recipe: Recipe, chunks: Iterator[list[Any]], head: int) -> Iterator[bytes]:
    """Check and encode the arguments of chunks of items, each on its line.

    Parameters:
      head: Bytes of a payload before its arguments.
    """
    first = 0
    for chunk in chunks:
        try:
            lines = _lines(recipe, chunk, head)
        except FlowError:
            for index, item in enumerate(chunk, first):
                with naming(index):
                    _lines(recipe, [item], head)
            raise
        yield lines
        first += len(chunk)


def _lines(recipe: Recipe, items: Sequence[Any], head: int) -> bytes:
    arrays = recipe.arrays(items)
    codec.check_arrays(arrays)
    lines = codec.encode_lines(arrays)
    if len(lines) + head + END > codec.MAX_SIZE:
        codec.check_size(max(map(len, lines.splitlines())) + head + END, recipe.actor.actor_name)
    return lines


def _check_all(encoded: Iterator[bytes]) -> None:
    for _ in encoded:
        pass


def _batches(
    frame: PayloadFrame, encoded: Iterable[bytes], sent: SentMessages[Any], queue: str, delay: int | None
) -> Iterator[Batch]:
    for lines in encoded:
        arguments = lines.splitlines()
        now = time.time()
        payloads = frame.payloads(arguments, sent.allot(len(arguments), now), now)
        for part in slices(payloads):
            yield Batch(queue, payloads[part], now + (delay or 0) / 1000)


def _divided(jobs: Mapping[str, Jobs], now: float, delay: int | None) -> Iterator[tuple[Batch, Sequence[Message]]]:
    """Divide the jobs of each queue into batches, with their messages."""
    for queue, (messages, payloads) in jobs.items():
        for part in slices(payloads):
            yield Batch(queue, payloads[part], now + (delay or 0) / 1000), messages[part]


def _error(error: Exception, jids: Sequence[str], first: int) -> Exception:
    """The error to raise for one of the store.

    Parameters:
      first: Index of the first id of the write that the error is about.
    """
    return error.of_jobs(jids[first:]) if isinstance(error, Unconfirmed) else error
