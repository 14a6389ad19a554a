"""The broker: Dramatiq's face on a Sidekiq Redis."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import dramatiq
from dramatiq import Middleware
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import MiddlewareError, default_middleware
from dramatiq.middleware.retries import Retries as DramatiqRetries

from ..context import current_job
from ..errors import ConfigurationError, FlowError, NotReplicated, PayloadError, WrongType
from ..store import keys, processes, queues, sets, workers
from ..store.connection import FAULTS, LOST, Connection, connect
from ..store.needs import Needs
from ..store.replication import OFF, Replication, ReplicaWait, Unconfirmed
from ..wire import codec
from ..wire.dialect import NOOP_CLASSES
from ..wire.payload import DEFAULTS, Payload
from .availability import Availability
from .commit import GroupCommit
from .consumer import SidekiqConsumer
from .heartbeat import Heartbeat
from .in_flight import InFlight
from .lifecycle import Lifecycle, ServerCheck, give_back
from .log_limit import LogBurst, LogLimit
from .message import SidekiqMessage, actor_options, enqueued_itself, mark_sent, to_fields
from .order import Order, QueueOrder
from .poller import Poller
from .processes import Appearance, Processes
from .retries import Retries
from .step_hooks import has_hooks
from .tally import Tally
from .unknown_actor import correct_log, unknown_actor
from .waiter import Waiter
from .window import Window

if TYPE_CHECKING:
    import redis


#: Connections that the consumers of a process share to fetch with.
FETCHING = 4

#: With fewer connections than this, consumers fetch with those that all parts share.
ENOUGH = 10


class Completion(Protocol):
    """What follows a finished job of a workflow; see ``workflow.completion``."""

    @property
    def retrieve(self) -> Callable[[Any], Any] | None: ...
    def advance(self, message: SidekiqMessage) -> None: ...
    def prepare_wait(self, payload: Payload, *, waits: float) -> Needs: ...


class SidekiqBroker(dramatiq.Broker):
    """A broker whose messages are Sidekiq jobs, in Sidekiq's queues and sets.

    Examples:

      >>> broker = SidekiqBroker(url="redis://localhost:6379/0")
      >>> broker.add_middleware(WorkflowMiddleware())
      >>> dramatiq.set_broker(broker)

    Parameters:
      url: ``redis://``, ``rediss://`` or ``unix://``; ``embedded://`` for a
        server of its own, for demos and tests. Unless given, the environment
        variable ``REDIS_URL``, else ``redis://localhost:6379/0``.
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
      replication: How many replicas must have what is sent, and what is
        acknowledged.  None by default: the primary is enough.
      **options: Passed to the redis-py client.
    """

    #: Keys that a job hands on to those that it sends, beyond the usual ones; set by the WorkflowMiddleware.
    inherit: frozenset[str] = frozenset()

    #: How many middleware there were when it was looked whether any has hooks, and whether one had.
    _hooks = (-1, False)

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
        replication: Replication | None = None,
        **options: Any,
    ) -> None:
        if client is not None:
            self.connection = Connection(client)
        else:
            url = url or os.environ.get("REDIS_URL") or "redis://localhost:6379/0"
            try:
                if url.startswith("embedded://"):
                    from .. import embedded  # only demos and tests need it

                    url = embedded.resolve_url(url)
                self.connection = connect(url, **options)
            except FlowError:
                # A log that shows the locals of a traceback is not to show the password in it.
                url, options = None, {}
                raise
        self.replication = self._checked(replication)
        self.connection.replicas = ReplicaWait(self.replication.push, self.replication.timeout)
        self._pid = os.getpid()
        self.availability = Availability()
        self.log_limit = LogLimit()
        #: For lines about jobs that cannot be read.
        self.log_burst = LogBurst()
        # What must not wait for each other has connections of its own, where there
        # may be enough of them.
        few = self.connection.most is not None and self.connection.most < ENOUGH
        self.fetching = self.connection if few else self.connection.lane(FETCHING)
        self.waiter = Waiter(self.connection)
        beating = self.connection.lane(1 if few else 2)
        self.heartbeat = Heartbeat(beating, heartbeat_timeout / 1000, self.availability)
        self.commit = self._new_commit()
        self.poller = Poller(beating, poll_interval / 1000, self.availability)
        self.server_check = ServerCheck(self)
        #: Failed jobs in flight that ``retry`` or ``dead`` could not take:
        #: member and receipt -> a call that tries again.
        self.set_aside: dict[tuple[str, str], Callable[[], None]] = {}
        self.heartbeat.tasks += [
            self.server_check.repeat,
            # Acknowledgements that an unavailable Redis left lying go out with a beat.
            lambda: self.commit.flush(),
            self._settle_aside,
        ]
        self.completion: Completion | None = None
        #: What happens beside single jobs: recoveries, jobs that cannot be read, replicas that are missing.
        self.events = self.poller.events = self.heartbeat.events
        #: Called with the keys of each job that is pushed from here, and why:
        #: ``send``, ``start`` (the first jobs of a run) or ``advance``.
        self.stamps: list[Callable[[dict[str, Any], str], None]] = []
        self.order = QueueOrder(queue_order)
        #: Options of the Ruby classes declared for this broker: class name -> options.
        self.ruby_jobs: dict[str, dict[str, Any]] = {}
        self.tally = Tally()
        #: What this process holds in flight, by queue.
        self.windows: dict[str, Window] = {}
        self.heartbeat.in_flight = InFlight(self)
        self.heartbeat.recovery.windows = self.windows
        self.heartbeat.recovery.is_quiet = lambda: self.quiet
        self.heartbeat.recovery.flush = lambda: self.commit.flush()
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
        #: Around all middleware, and none of it: `before` and `after` count from the application's first.
        self._lifecycle = Lifecycle()
        super().__init__(middleware=list(middleware))
        self.actor_options |= self._lifecycle.actor_options
        self.queues: set[str] = set()

    # -- hooks --------------------------------------------------------------

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook of the lifecycle, then of each middleware in order."""
        self._follow(f"before_{signal}", *args, **kwargs)
        super().emit_before(signal, *args, **kwargs)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook of each middleware in reverse order, then of the lifecycle."""
        super().emit_after(signal, *args, **kwargs)
        self._follow(f"after_{signal}", *args, **kwargs)

    def _follow(self, hook: str, *args: Any, **kwargs: Any) -> None:
        try:
            getattr(self._lifecycle, hook)(self, *args, **kwargs)
        except MiddlewareError:
            raise
        except Exception:
            self.logger.critical("Unexpected failure in %s of %r.", hook, self._lifecycle, exc_info=True)

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

    @property
    def has_enqueue_hooks(self) -> bool:
        """Whether a middleware wants to know what is enqueued, steps too."""
        count = len(self.middleware)
        if self._hooks[0] != count:
            self._hooks = (count, any(map(has_hooks, self.middleware)))
        return self._hooks[1]

    def check_encoder(self) -> None:
        """See that messages are what is sent: an encoder of the application's own is never asked here.

        Raises:
          EncoderIgnored: if one was set.
        """
        encoder = dramatiq.get_encoder()
        if type(encoder) is not dramatiq.JSONEncoder:
            raise EncoderIgnored(
                f"dramatiq.set_encoder({type(encoder).__name__}()) has no effect on a SidekiqBroker: a job is JSON "
                "that Ruby reads, too, so what the encoder hides would stand in Redis in the clear. Remove "
                "set_encoder(), and encrypt single arguments in the application.",
                encoder,
            )

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue.  Has no effect where it is declared already."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def declare_actor(self, actor: dramatiq.Actor[Any, Any]) -> None:
        """Declare an actor.  The id of its messages is the jid of their jobs."""
        self._options[actor.actor_name] = actor_options(actor)
        if actor.options.get("cancellable"):
            self.cancellable.add(actor.actor_name)
        super().declare_actor(actor)

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
        raise unknown_actor(actor_name, self.actors)

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
          EncoderIgnored: if the application has set an encoder of its own.
          StepEnqueuedItself: for the message of the step that this thread works on.
          ConnectionClosed: when Redis cannot be reached.
          NotReplicated: if the job was pushed, and too few replicas have it.
        """
        self.check_encoder()
        job = current_job()
        if job is not None and job.jid == message.message_id and (job.stack or job.run_id):
            raise enqueued_itself(message)
        self.emit_before("enqueue", message, delay)
        now = time.time()
        fields = to_fields(message, self._options.get(message.actor_name, DEFAULTS), now=now)
        if job is not None:
            fields = {**job.inherited(self.inherit), **fields}
        self.stamp(fields, "send")
        unconfirmed: NotReplicated | None = None
        try:
            if delay is not None and delay > 0:
                at = now + delay / 1000
                self.poller.nudge(delay / 1000)
                queues.schedule(self.connection, at, codec.encode_payload(fields))
            else:
                fields["enqueued_at"] = now
                queues.push(self.connection, fields["queue"], (codec.encode_payload(fields),))
        except Unconfirmed as e:
            # Pushed all the same: said when all else is done.
            unconfirmed = e.of_job(message.message_id)
        except LOST as e:
            raise ConnectionClosed(e) from None
        mark_sent(message)
        self.emit_after("enqueue", message, delay)
        if unconfirmed is not None:
            raise unconfirmed
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
        correct_log(queue_name)
        self._mind_fork()
        return SidekiqConsumer(self, queue_name, prefetch, timeout)

    def window(self, queue_name: str, prefetch: int) -> Window:
        """What this process holds in flight of a queue; registers it."""
        member = self.heartbeat.register(queue_name)
        window = self.windows.get(queue_name)
        if window is None or window.member != member:
            window = self.windows[queue_name] = Window(queue_name, member)
            window.tried = self.heartbeat.hurry
            window.arrived = partial(self.waiter.wake, queue_name)
        window.allow(prefetch)
        return window

    def begin(self, worker: dramatiq.Worker) -> None:
        """A Dramatiq worker of this process is about to start."""
        self._mind_fork()
        self.quiet = False
        self.workers.append(worker)

    def stop_fetching(self) -> None:
        """Begin no new job, until the worker is started anew (Sidekiq's ``quiet``).

        What was fetched, and not begun, goes back to its queue.  Like
        Sidekiq's, a quiet process no longer looks at ``schedule`` and ``retry``.
        """
        self.quiet = True
        self.waiter.release()
        self.poller.stop()
        for worker in self.workers:
            give_back(worker)

    def hand_back(self) -> None:
        """Put back what this process still holds, and leave the fleet: it shuts down.

        Jobs still running lose their entry in flight: their acknowledgement is
        ignored, and they run again elsewhere, as Sidekiq's do after a hard
        shutdown.  What cannot be put back now is recovered by other workers.
        """
        self._attempt(self.commit.flush)
        self._attempt(self._settle_aside)
        for window in list(self.windows.values()):
            self._attempt(partial(self._hand_back, window))
        self.windows.clear()
        self.set_aside.clear()
        self._attempt(self.heartbeat.stop)
        self._attempt(self.processes.stop)

    def _hand_back(self, window: Window) -> None:
        receipts = workers.receipts(self.connection, window.member)
        # Suspects are left for the trial that another process gives them.
        receipts = [receipt for receipt in receipts if not receipt.endswith(keys.SUSPECT.encode())]
        if receipts:
            receipts.sort(key=keys.fetch_order)
            queues.requeue(self.connection, window.member, window.queue_name, receipts)

    def _attempt(self, part: Callable[[], None]) -> None:
        """One part of the shutdown: an error in it does not keep the others from running."""
        try:
            part()
        except (ConnectionClosed, *FAULTS) as e:
            self.logger.warning("The shutdown goes on without a part, and other workers recover the jobs: %s", e)

    def _settle_aside(self) -> None:
        """Try again what ``retry`` or ``dead`` could not take."""
        for key, write in list(self.set_aside.items()):
            try:
                write()
            except WrongType:
                continue
            self.set_aside.pop(key, None)

    def _checked(self, replication: Replication | None) -> Replication:
        if replication is None:
            return OFF
        if not isinstance(replication, Replication):
            raise ConfigurationError(
                f"replication must be a Replication, such as Replication(push=1), not {replication!r}.", replication
            )
        longest = int(self.connection.longest_wait * 1000)
        if replication.timeout > longest:
            raise ConfigurationError(
                f"Replication(timeout={replication.timeout}) is longer than half of the socket's time limit, so the "
                f"connection would count as lost: make it {longest} or less, or pass a longer socket_timeout.",
                replication.timeout,
            )
        return replication

    def _new_commit(self) -> GroupCommit:
        replicas = ReplicaWait(self.replication.acknowledge, self.replication.timeout)
        return GroupCommit(self.connection.lane(), self.availability, replicas, self.heartbeat.events)

    def _mind_fork(self) -> None:
        """In a forked child: begin with nothing of what the parent holds and runs."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self.windows.clear()
        self.set_aside, self.workers = {}, []
        self.commit = self._new_commit()
        self.tally = Tally()
        for part in (self.heartbeat, self.poller, self.processes):
            part.forget()

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
        """Stop this process's threads and connections; in a forked child, leave the parent's alone."""
        self._mind_fork()
        self.waiter.stop()
        self.poller.stop()
        if self.windows or self.heartbeat.members:
            self.hand_back()
        self.connection.close()


class EncoderIgnored(ConfigurationError, MiddlewareError):
    """Dramatiq's encoder was replaced, and is not asked.  As a MiddlewareError it also stops a worker from starting."""


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
