"""The broker: Dramatiq's face on a Sidekiq Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import dramatiq
from dramatiq import Middleware
from dramatiq.errors import ActorNotFound, ConnectionClosed, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import default_middleware
from dramatiq.middleware.retries import Retries as DramatiqRetries

from ..errors import PayloadError
from ..store import keys, processes, queues, sets, workers
from ..store.connection import LOST, Connection, connect
from ..wire import codec
from ..wire.callbacks import Callback
from ..wire.dialect import NOOP_CLASSES
from ..wire.payload import DEFAULTS, Payload
from .commit import GroupCommit
from .consumer import SidekiqConsumer
from .heartbeat import Heartbeat
from .in_flight import InFlight
from .lifecycle import Lifecycle, give_back
from .message import SidekiqMessage, actor_options, new_jid, to_fields
from .order import Order, QueueOrder
from .poller import Poller
from .processes import Appearance, Processes
from .retries import Retries
from .tally import Tally
from .window import Window

if TYPE_CHECKING:
    import redis


class Completion(Protocol):
    """What follows a finished job of a workflow; see ``workflow.completion``."""

    #: Gives the callback stack for what a payload holds in its place; None where it holds the stack.
    retrieve: Callable[[Any], Any] | None

    def advance(self, message: SidekiqMessage) -> None: ...
    def memory_of(self, payload: Payload) -> tuple[str, int]: ...

    def keep(self, stack: tuple[Callback, ...], ttl: int) -> None: ...


class SidekiqBroker(dramatiq.Broker):
    """A broker whose messages are Sidekiq jobs, in Sidekiq's queues and sets.

    Examples:

      >>> broker = SidekiqBroker(url="redis://localhost:6379/0")
      >>> broker.add_middleware(WorkflowMiddleware())
      >>> dramatiq.set_broker(broker)

    Parameters:
      url: ``redis://``, ``rediss://`` or ``unix://``; ``embedded://`` for a
        server of its own, for demos and tests.
      client: A redis-py client instead (TLS options, ``Sentinel.master_for``).
      middleware: Dramatiq's default list unless given.  Dramatiq's ``Retries``
        in it is replaced by one that keeps Sidekiq's rules.
      heartbeat_timeout: Milliseconds without a beat after which a worker is
        dead and its jobs are recovered.
      poll_interval: Milliseconds between two looks at ``schedule`` and
        ``retry``, on average.
      queue_order: The order in which this process serves its queues: names,
        strictly the first one first, or name -> weight.  All alike by default.
      show_process: Whether Sidekiq's Web UI shows this process as busy or idle.
      tag, labels: Shown there beside its name.
      metrics: Whose layout of metrics to write: ``7``, ``8``, ``both``,
        ``off``, or ``auto``: that of the Sidekiq processes that run.
      **options: Passed to the redis-py client.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: redis.Redis | None = None,
        middleware: Iterable[Middleware] | None = None,
        heartbeat_timeout: int = 60_000,
        poll_interval: int = 1_000,
        queue_order: Order | None = None,
        show_process: bool = True,
        tag: str = "",
        labels: Iterable[str] = ("python",),
        metrics: str = "auto",
        **options: Any,
    ) -> None:
        if client is not None:
            self.connection = Connection(client)
        else:
            url = url or "redis://localhost:6379/0"
            if url.startswith("embedded://"):
                from .. import embedded  # only demos and tests need it

                url = embedded.resolve_url(url)
            self.connection = connect(url, **options)
        self.commit = GroupCommit(self.connection)
        self.heartbeat = Heartbeat(self.connection, heartbeat_timeout / 1000)
        self.poller = Poller(self.connection, poll_interval / 1000)
        # Acknowledgements that a lost connection left lying go out with a beat.
        self.heartbeat.tasks.append(self.commit.flush)
        self.completion: Completion | None = None
        #: What happens beside single jobs: recoveries, jobs that cannot be read.
        self.events = self.poller.events = self.heartbeat.events
        #: Called with the keys of each job that is pushed from here, and why:
        #: ``send``, ``start`` (the first jobs of a run) or ``advance``.
        self.stamps: list[Callable[[dict[str, Any], str], None]] = []
        self.order = QueueOrder(queue_order)
        self.tally = Tally()
        #: What this process holds in flight, by queue.
        self.windows: dict[str, Window] = {}
        self.heartbeat.in_flight = InFlight(self)
        self.heartbeat.recovery.windows = self.windows
        self.heartbeat.recovery.is_quiet = lambda: self.quiet
        self.heartbeat.recovery.flush = self.commit.flush
        self.processes = Processes(self, Appearance(show_process, tag, tuple(labels), metrics))
        self.heartbeat.tasks.append(self.processes.beat)
        #: The Dramatiq workers of this process.
        self.workers: list[dramatiq.Worker] = []
        #: Names of the actors whose jobs a person may cancel.
        self.cancellable: set[str] = set()
        #: No new jobs are fetched while this is true.
        self.quiet = False
        self._options: dict[str, dict[str, Any]] = {}
        self._noop: dramatiq.Actor[Any, Any] | None = None
        if middleware is None:
            middleware = [m() for m in default_middleware]
        super().__init__(middleware=[Lifecycle(), *middleware])
        self.queues: set[str] = set()

    # -- declaring ----------------------------------------------------------

    def add_middleware(
        self,
        middleware: Middleware,
        *,
        before: type[Middleware] | None = None,
        after: type[Middleware] | None = None,
    ) -> None:
        """Add a middleware.  One with ``attach(broker)`` is told which broker it serves."""
        if type(middleware) is DramatiqRetries:
            middleware = Retries.taking_over(middleware)
        super().add_middleware(middleware, before=before, after=after)
        attach = getattr(middleware, "attach", None)
        if attach is not None:
            attach(self)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue.  Has no effect where it is declared already."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def declare_actor(self, actor: dramatiq.Actor[Any, Any]) -> None:
        """Declare an actor.  Its messages get jids as their ids."""
        self._options[actor.actor_name] = actor_options(actor)
        if actor.options.get("cancellable"):
            self.cancellable.add(actor.actor_name)
        super().declare_actor(actor)
        build = actor.message_with_options

        def message_with_options(**options: Any) -> dramatiq.Message[Any]:
            message = build(**options)
            object.__setattr__(message, "message_id", new_jid())
            return message

        actor.message_with_options = message_with_options  # type: ignore[method-assign]

    def get_declared_queues(self) -> set[str]:
        """The names of the queues declared so far."""
        return set(self.queues)

    def get_actor(self, actor_name: str) -> dramatiq.Actor[Any, Any]:
        """Look an actor up; the gem's NoopWorker is always there."""
        actor = self.actors.get(actor_name)
        if actor is not None:
            return actor
        if actor_name in NOOP_CLASSES:
            if self._noop is None:
                self._noop = _Undeclared(
                    _noop, broker=self, actor_name=actor_name, queue_name="default", priority=0, options={}
                )
            return self._noop
        raise ActorNotFound(actor_name)

    def options_of(self, actor_name: str) -> Mapping[str, Any] | None:
        """The job options of a declared actor: ``queue``, ``retry``, ..."""
        return self._options.get(actor_name)

    # -- sending ------------------------------------------------------------

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Push a message as a Sidekiq job.

        Parameters:
          delay: Milliseconds; such a job goes to ``schedule``.

        Raises:
          InvalidArguments, InvalidOptions: for what this wire cannot carry.
          ConnectionClosed: when Redis cannot be reached.
        """
        self.emit_before("enqueue", message, delay)
        now = time.time()
        fields = to_fields(message, self._options.get(message.actor_name, DEFAULTS), now=now)
        self.stamp(fields, "send")
        try:
            if delay is not None and delay > 0:
                at = now + delay / 1000
                queues.schedule(self.connection, at, codec.encode(fields))
                self.poller.nudge(delay / 1000)
            else:
                fields["enqueued_at"] = now
                queues.push(self.connection, fields["queue"], (codec.encode(fields),))
        except LOST as e:
            raise ConnectionClosed(e) from None
        self.emit_after("enqueue", message, delay)
        return message

    def stamp(self, fields: dict[str, Any], why: str) -> None:
        """Let each of :attr:`stamps` add what a job carries along, such as a trace context."""
        for stamp in self.stamps:
            try:
                stamp(fields, why)
            except Exception:
                self.logger.warning("A job goes out without what %r adds to it.", stamp, exc_info=True)

    # -- consuming ----------------------------------------------------------

    @property
    def threads(self) -> int:
        """How many threads run jobs in this process."""
        return sum(worker.worker_threads for worker in self.workers)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> SidekiqConsumer:
        """A consumer of a declared queue.

        Parameters:
          prefetch: The least number of jobs to hold in flight.
          timeout: Milliseconds to wait for a job before giving back None.

        Raises:
          QueueNotFound: for a queue that was never declared.
        """
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        return SidekiqConsumer(self, queue_name, prefetch, timeout)

    def window(self, queue_name: str, prefetch: int) -> Window:
        """What this process holds in flight of a queue; registers it."""
        member = self.heartbeat.register(queue_name)
        window = self.windows.get(queue_name)
        if window is None or window.member != member:
            window = self.windows[queue_name] = Window(queue_name, member)
            window.tried = self.heartbeat.hurry
        window.allow(prefetch)
        return window

    def stop_fetching(self) -> None:
        """Begin no new job, until the worker is started anew (Sidekiq's ``quiet``).

        What was fetched, and not begun, goes back to its queue.  Like
        Sidekiq's, a quiet process no longer looks at ``schedule`` and ``retry``.
        """
        self.quiet = True
        self.poller.stop()
        for worker in self.workers:
            give_back(worker)

    def hand_back(self) -> None:
        """Put back whatever this process still holds: it shuts down.

        A thread that is still at work finishes into nothing: its job is no
        longer in flight here, and runs again elsewhere, as Sidekiq's does
        after a hard shutdown.
        """
        self.commit.flush()
        for window in self.windows.values():
            receipts = workers.receipts(self.connection, window.member)
            # Suspects are left for the trial that another process gives them.
            receipts = [receipt for receipt in receipts if not receipt.endswith(keys.SUSPECT.encode())]
            if receipts:
                receipts.sort(key=keys.fetch_order)
                queues.requeue(self.connection, window.member, window.queue_name, receipts)
        self.windows.clear()
        self.heartbeat.stop()
        self.processes.stop()

    # -- what a person does ---------------------------------------------------

    def pause_queue(self, queue_name: str) -> None:
        """Let no Python worker (and no Sidekiq Pro) fetch from a queue; those that run go on."""
        queues.pause(self.connection, queue_name)

    def unpause_queue(self, queue_name: str) -> None:
        """Let a queue be fetched from again, within a second."""
        queues.unpause(self.connection, queue_name)

    def cancel(self, jid: str) -> None:
        """Cancel a job of an actor (or of a Ruby iterable job) that asks for it."""
        processes.cancel(self.connection, jid, now=time.time())

    # -- looking and cleaning -----------------------------------------------

    def flush(self, queue_name: str) -> None:
        """Drop the jobs of a queue, those that are scheduled for it too."""
        queues.clear(self.connection, queue_name)
        for name in (keys.SCHEDULE, keys.RETRY):
            members = [member for member, _ in sets.members(self.connection, name)]
            sets.remove(self.connection, name, [m for m in members if _is_for(queue_name, m)])

    def flush_all(self) -> None:
        """Drop the jobs of all declared queues."""
        for queue_name in self.get_declared_queues():
            self.flush(queue_name)

    def join(self, queue_name: str, *, interval: int = 20, timeout: int | None = None) -> None:
        """Wait until a queue has nothing waiting, in flight, scheduled or to be retried.  For tests.

        Parameters:
          interval, timeout: Milliseconds.

        Raises:
          QueueJoinTimeout: when the timeout passes first.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            count, later = queues.unfinished(self.connection, queue_name)
            if not count and not any(_is_for(queue_name, member) for member in later):
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(interval / 1000)

    def close(self) -> None:
        """Stop this process's threads and connections."""
        self.poller.stop()
        if self.windows or self.heartbeat.members:
            try:
                self.hand_back()
            except (ConnectionClosed, *LOST) as e:
                # Others recover them, once this process has been silent for long enough.
                self.logger.warning("Jobs in flight could not be put back: %s", e)
        self.connection.close()


class _Undeclared(dramatiq.Actor[Any, Any]):
    """An actor that declares no queue: Python must not consume Ruby's `default` for it."""

    def __init__(self, fn: Any, *, broker: Any, **attributes: Any) -> None:
        nowhere: Any = _Nowhere()
        super().__init__(fn, broker=nowhere, **attributes)
        self.broker = broker


class _Nowhere:
    def __init__(self) -> None:
        self.actors: dict[str, Any] = {}

    def declare_actor(self, actor: Any) -> None:
        pass


def _is_for(queue_name: str, member: bytes) -> bool:
    try:
        return codec.decode(member).get("queue") == queue_name
    except PayloadError:
        return False


def _noop() -> None:
    """A delayed empty chain or group: only its callbacks matter."""
