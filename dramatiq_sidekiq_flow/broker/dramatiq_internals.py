"""All that touches the insides of Dramatiq, so that a new version of it breaks one file.

Each function says where in Dramatiq it looks: in 2.1 and 2.2 alike, unless
another version is named.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import attrs
import dramatiq
from dramatiq import worker as dramatiq_worker
from dramatiq.broker import MessageProxy
from dramatiq.common import iter_queue
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import AgeLimit, Callbacks, Pipelines, ShutdownNotifications, TimeLimit, time_limit

from ..store.keys import NOT_BEGUN
from .queue_order import QueueOrder
from .work_queue import WorkQueue

#: The classes of the threads that run actors, and that consume a queue.
_WorkerThread: Any = dramatiq_worker._WorkerThread
_ConsumerThread: Any = dramatiq_worker._ConsumerThread

# -- messages -----------------------------------------------------------------


def exception_of(message: MessageProxy) -> BaseException | None:
    """The exception that a message failed with (``MessageProxy._exception``)."""
    return message._exception


def dict_of(message: MessageProxy) -> dict[str, Any]:
    """The message behind a proxy as a dict (``MessageProxy._message``)."""
    fields: dict[str, Any] = message._message.asdict()
    return fields


@attrs.frozen
class ReturnedValue:
    """A message, and the value that its actor returned; None for either if a function does not have it."""

    message: Any
    value: Any


def returned_values(frame: FrameType | None) -> Iterator[ReturnedValue]:
    """Read the local names of the functions of Dramatiq that hold a returned value, from the innermost.

    Those are ``WorkerThread.process_message`` (``res``) and the hook
    ``Results.after_process_message`` (``result``).
    """
    while frame is not None:
        if frame.f_code.co_name in ("process_message", "after_process_message"):
            names = frame.f_locals
            yield ReturnedValue(names.get("message"), names.get("res", names.get("result")))
        frame = frame.f_back


def dropped_value_loggers() -> tuple[logging.Logger, ...]:
    """The loggers that warn of a returned value that is dropped (``worker.WorkerThread``, ``Results``)."""
    names = ("dramatiq.worker.WorkerThread", "dramatiq.results.middleware.Results")
    return tuple(map(logging.getLogger, names))


# -- middleware ---------------------------------------------------------------


@attrs.frozen
class OptionHook:
    """A hook that does nothing unless an option is set: on the message, its actor, or the middleware (an attribute)."""

    function: Any
    options: tuple[str, ...]


def _option_hooks() -> dict[tuple[type, str], OptionHook]:
    before, after, skip = "before_process_message", "after_process_message", "after_skip_message"
    found = (
        (AgeLimit, (before,), ("max_age",)),
        (ShutdownNotifications, (before, after, skip), ("notify_shutdown",)),
        (Callbacks, (after,), ("on_success", "on_failure")),
        # Only a message has a target.
        (Pipelines, (after,), ()),
    )
    return {(kind, hook): OptionHook(getattr(kind, hook), options) for kind, hooks, options in found for hook in hooks}


#: Hooks of Dramatiq's middleware (``dramatiq.middleware``) that look at options first.
OPTION_HOOKS = _option_hooks()


#: A time limit that passes within so many seconds is removed with the lock.
NEAR = 1.0


def unlock_time_limits(broker: dramatiq.Broker) -> None:
    """Let threads set their time limits without a lock (``TimeLimit.manager``).

    All threads take that lock, twice for each job.  A thread that loses the interpreter
    while it holds the lock makes the others queue up, and from then on each job waits
    for a switch of threads.
    """
    for each in broker.middleware:
        if not isinstance(each, TimeLimit) or type(each.manager) is not time_limit._CtypesTimeoutManager:
            continue
        if "add_timeout" not in vars(each.manager):
            _unlock(each.manager)


def _unlock(manager: Any) -> None:
    """Replace two methods of a ``_CtypesTimeoutManager``.

    Its own thread iterates over the deadlines of all threads, and clears those that
    have passed.  So a new key needs the lock, and a deadline that may be cleared soon.
    """
    deadlines: dict[int, float | None] = manager.deadlines
    locked_add, locked_remove = manager.add_timeout, manager.remove_timeout

    def add_timeout(thread: int, ms: float) -> None:
        if deadlines.get(thread, 0.0) is None:
            deadlines[thread] = time.monotonic() + ms / 1000
        else:
            locked_add(thread, ms)

    def remove_timeout(thread: int) -> None:
        deadline = deadlines.get(thread)
        if deadline and time.monotonic() + NEAR < deadline:
            deadlines[thread] = None
        else:
            locked_remove(thread)

    manager.add_timeout, manager.remove_timeout = add_timeout, remove_timeout


# -- workers ------------------------------------------------------------------


def stand_in_worker(broker: dramatiq.Broker) -> Any:
    """Make a stand-in for a ``Worker``, with the attributes that hooks may read (``Worker.__init__``)."""
    return types.SimpleNamespace(broker=broker, consumers={}, workers=[], worker_timeout=1000)


def threads_of(workers: Iterable[dramatiq.Worker]) -> int:
    """The number of threads that run actors (``Worker.worker_threads``)."""
    return sum(worker.worker_threads for worker in workers)


def consumed_queues(workers: Iterable[dramatiq.Worker]) -> set[str]:
    """The queues that some workers have a consumer for (the keys of ``Worker.consumers``)."""
    names: set[str] = set()
    for worker in workers:
        # A copy: Dramatiq adds consumers in other threads.
        names.update(list(worker.consumers))
    return names


def wanted_queues(worker: dramatiq.Worker) -> set[str] | None:
    """The queues that a worker is restricted to (``Worker.consumer_whitelist``); None for all."""
    return worker.consumer_whitelist or None


def explicit_prefetch() -> bool:
    """Return True if ``dramatiq_queue_prefetch`` in the environment sets the prefetch (``worker.QUEUE_PREFETCH``)."""
    return bool(dramatiq_worker.QUEUE_PREFETCH)


def consumer_logger(queue_name: str) -> logging.Logger:
    """The logger of the thread that consumes a queue (``worker.ConsumerThread``)."""
    return logging.getLogger(f"dramatiq.worker.ConsumerThread({queue_name})")


def consumer_stops() -> bool:
    """Return True if this thread consumes a queue, and is paused or stopped (``worker.ConsumerThread``)."""
    thread: Any = threading.current_thread()
    return isinstance(thread, _ConsumerThread) and bool(thread.paused or not thread.running)


# -- the thread that runs actors (worker.WorkerThread) --------------------------


def can_run_next(queue_name: str) -> bool:
    """Return True if this thread runs actors, and is free for a job of a queue when it has acknowledged its own.

    No job waits for a thread then, and the worker is neither paused nor stopped.
    """
    thread: Any = threading.current_thread()
    if not isinstance(thread, _WorkerThread) or thread.paused or not thread.running:
        return False
    work = thread.work_queue
    return isinstance(work, WorkQueue) and work.peek() is None and queue_name in thread.consumers


def next_must_begin() -> bool:
    """Return True if this thread runs actors, and a job waits for it that has to be marked as begun."""
    thread: Any = threading.current_thread()
    if not isinstance(thread, _WorkerThread) or thread.paused or not thread.running:
        return False
    item = thread.work_queue.peek() if isinstance(thread.work_queue, WorkQueue) else None
    return item is not None and message_of(item).receipt.endswith(NOT_BEGUN)


def run_next(message: Any) -> None:
    """Let this thread run a message next (``ConsumerThread.handle_message``); see :func:`can_run_next`."""
    thread: Any = threading.current_thread()
    with thread.work_queue.for_this_thread():
        thread.consumers[message.queue_name].handle_message(message)


# -- a worker's queue of waiting messages (Worker.work_queue) -----------------


def message_of(item: Any) -> Any:
    """The message of an item of Dramatiq's work queue: a pair until 2.1, an object from 2.2 on."""
    return item[1] if type(item) is tuple else item.message


def priority_of(item: Any) -> Any:
    """The actor's priority of an item of Dramatiq's work queue; lower comes first."""
    return item[0] if type(item) is tuple else item.priority


def replace_work_queue(worker: dramatiq.Worker, order: QueueOrder, idle: Callable[[], None]) -> None:
    """Replace a worker's queue of waiting messages by a :class:`WorkQueue`; before its threads start."""
    worker.work_queue = WorkQueue(order, message_of, priority_of, idle)  # type: ignore[assignment]


def work_queue_of(worker: dramatiq.Worker) -> WorkQueue | None:
    """A worker's queue of waiting messages, if it was replaced."""
    queue: Any = worker.work_queue
    return queue if isinstance(queue, WorkQueue) else None


def skip_empty_delay_queue(thread: Any) -> None:
    """Let a consumer thread look for delayed messages only if it holds any.

    It looks after each message (``ConsumerThread.handle_delayed_messages``), and messages
    of a SidekiqBroker have no ``eta``, unless a middleware sets it.
    """
    handle = thread.handle_delayed_messages

    def handle_if_any() -> None:
        if thread.delay_queue.queue:
            handle()

    thread.handle_delayed_messages = handle_if_any


def give_back(worker: dramatiq.Worker) -> None:
    """Put back messages that wait in a worker for a thread.

    If Redis cannot be reached, they stay in the worker, and run.
    """
    for queue_name, items in _waiting(worker).items():
        try:
            worker.consumers[queue_name].requeue_messages(message_of(item) for item in items)
        except ConnectionClosed as e:
            worker.logger.warning("Could not put %d jobs back into %r: %s", len(items), queue_name, e)
            _put_all(worker, items)
        for _ in items:
            worker.work_queue.task_done()


def _waiting(worker: dramatiq.Worker) -> dict[str, list[Any]]:
    """Take all items out of a worker's queue: queue of the broker -> items."""
    waiting: dict[str, list[Any]] = {}
    for item in iter_queue(worker.work_queue):
        waiting.setdefault(message_of(item).queue_name, []).append(item)
    return waiting


def _put_all(worker: dramatiq.Worker, items: Iterable[Any]) -> None:
    for item in items:
        worker.work_queue.put(item)


# -- the process --------------------------------------------------------------


def has_global_broker() -> bool:
    """Return True if a global broker was set (``dramatiq.broker.global_broker``); asking for it would make one."""
    return dramatiq.broker.global_broker is not None


@contextlib.contextmanager
def as_global_broker(broker: dramatiq.Broker) -> Iterator[None]:
    """Make a broker the global one inside the block (``dramatiq.broker.global_broker``, which may be None)."""
    before = dramatiq.broker.global_broker
    dramatiq.set_broker(broker)
    try:
        yield
    finally:
        dramatiq.broker.global_broker = before
