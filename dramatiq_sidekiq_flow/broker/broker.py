"""SidekiqBroker: a Dramatiq broker on the Redis of Sidekiq."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import dramatiq
from dramatiq import Middleware
from dramatiq.errors import QueueNotFound
from dramatiq.middleware import default_middleware
from dramatiq.middleware.retries import Retries as DramatiqRetries

from ..context import current_job
from ..errors import FlowError
from ..process.events import Events
from ..process.presence import ProcessInfo
from ..store import keys, processes, queues, sets
from ..store.connection import RedisClient
from ..store.replication import Replication, ReplicaWait
from ..wire.dialect import NOOP_CLASSES
from ..wire.own_steps import is_own
from ..wire.payload import DEFAULTS
from .broker_aware import BrokerAware
from .bulk import Bulk
from .consumer import SidekiqConsumer
from .encoder import check_encoder
from .enqueue_hooks import EnqueueHooks
from .hooked_broker import HookedBroker
from .job_completion import JobCompletion
from .joining import join
from .message import actor_options, check_not_itself, mark_sent
from .noop_actor import noop_actor
from .opening import checked, open_connection
from .queue_order import Order, QueueOrder
from .retries import Retries
from .send_many import send_many
from .sender import Sender, is_later
from .unknown_actor import correct_log, unknown_actor
from .worker_middleware import WorkerMiddleware
from .worker_process import WorkerProcess


class SidekiqBroker(HookedBroker):
    """A Dramatiq broker whose messages are Sidekiq jobs, in Sidekiq's queues and sets.

    Examples:

      >>> broker = SidekiqBroker(url="redis://localhost:6379/0")
      >>> broker.add_middleware(WorkflowMiddleware())
      >>> dramatiq.set_broker(broker)

    Parameters:
      url: URL of Redis: ``redis://``, ``rediss://`` or ``unix://``; or
        ``embedded://`` for a separate server, for demos and tests.  Default:
        the environment variable ``REDIS_URL``, else ``redis://localhost:6379/0``.
      client: A redis-py client, instead of a URL (TLS options, ``Sentinel.master_for``).
      middleware: Default: Dramatiq's list.  Dramatiq's ``Retries`` is replaced
        by a middleware that follows Sidekiq's rules.
      heartbeat_timeout: Milliseconds without a heartbeat after which a worker is
        dead and its jobs are recovered.
      poll_interval: Average milliseconds between two looks at ``schedule`` and ``retry``.
      queue_order: Order of the queues in this process: a list of names (strict
        order), or name -> weight.  Default: all queues equally.
      show_process: False hides this process on the Busy page of Sidekiq's Web UI.
      tag, labels: Shown on that page next to the name of the process.
      metrics: Layout of the metrics to write: ``7``, ``8``, ``both``, ``off``,
        or ``auto`` for the layout of the Sidekiq processes that run.
      replication: Numbers of replicas that must confirm sent and acknowledged
        jobs.  Default: none, the primary is enough.
      **options: Options of the redis-py client.
    """

    #: Further keys that a job passes on to the jobs that it sends; set by the WorkflowMiddleware.
    inherit: frozenset[str] = frozenset()

    def __init__(
        self,
        url: str | None = None,
        *,
        client: RedisClient | None = None,
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
        try:
            self.connection = open_connection(url, client, options)
        except FlowError:
            # A log may show the locals of a traceback: remove the password.
            url, options = None, {}
            raise
        replication = checked(replication, self.connection)
        self.connection.replicas = ReplicaWait(replication.push, replication.timeout)
        declared: set[str] = set()
        #: The parts that a process needs to run jobs; internal.
        self.process = WorkerProcess(
            self.connection,
            heartbeat_timeout=heartbeat_timeout / 1000,
            poll_interval=poll_interval / 1000,
            queue_order=QueueOrder(queue_order),
            process_info=ProcessInfo(show_process, tag, tuple(labels), metrics),
            replication=replication,
            declared=declared,
        )
        #: The part that pushes jobs; internal.
        self.sender = Sender(self.process)
        #: The part that pushes many jobs, and whether hooks are called for it; internal.
        self.bulk, self.enqueue_hooks = Bulk(self), EnqueueHooks()
        #: Functions called with the keys of each job before it is pushed, and the reason:
        #: ``send``, ``start`` (the first jobs of a run) or ``advance``.
        self.stamps = self.sender.stamps
        #: Options of the Ruby classes declared for this broker: class name -> options.
        self.ruby_jobs: dict[str, dict[str, Any]] = {}
        #: Names of the actors whose jobs an operator may cancel.
        self.cancellable: set[str] = set()
        self._options: dict[str, dict[str, Any]] = {}
        self._noop: dramatiq.Actor[Any, Any] | None = None
        if middleware is None:
            middleware = [m() for m in default_middleware]
        own = WorkerMiddleware(self.process)
        super().__init__(list(middleware), own, self.process.hooks)
        self.process.actors = self.actors
        self.queues = declared
        self.actor_options |= own.actor_options

    @property
    def events(self) -> Events:
        """Events that no Dramatiq hook reports: recovered jobs, jobs that cannot be read, missing replicas."""
        return self.process.events

    @property
    def completion(self) -> JobCompletion | None:
        """Completion of workflow jobs; set by the WorkflowMiddleware."""
        return self.process.completion

    @completion.setter
    def completion(self, completion: JobCompletion) -> None:
        self.process.completion = completion

    # -- declaring ----------------------------------------------------------

    def add_middleware(
        self,
        middleware: Middleware,
        *,
        before: type[Middleware] | None = None,
        after: type[Middleware] | None = None,
    ) -> None:
        """Add a middleware; a :class:`BrokerAware` one is attached to this broker."""
        if type(middleware) is DramatiqRetries:
            middleware = Retries.taking_over(middleware)
        super().add_middleware(middleware, before=before, after=after)
        if isinstance(middleware, BrokerAware):
            middleware.attach(self)

    @property
    def has_enqueue_hooks(self) -> bool:
        """True if a middleware has enqueue hooks, which are called for steps, too."""
        return self.enqueue_hooks.found(self.middleware)

    def check_encoder(self) -> None:
        """Check that the application has set no encoder: messages of this broker are Sidekiq's JSON.

        Raises:
          EncoderIgnored: if it has.
        """
        check_encoder()

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue, unless it is declared already."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def declare_actor(self, actor: dramatiq.Actor[Any, Any]) -> None:
        """Declare an actor.  The id of its messages is the jid of their jobs.

        The actor gets an attribute ``send_many``, see :func:`send_many`, unless its class has one.
        """
        self._options[actor.actor_name] = actor_options(actor)
        if not hasattr(actor, "send_many"):
            actor.__dict__["send_many"] = partial(send_many, actor)
        if actor.options.get("cancellable"):
            self.cancellable.add(actor.actor_name)
        super().declare_actor(actor)
        self.process.hooks.forget()

    def get_declared_queues(self) -> set[str]:
        """The names of the queues declared so far."""
        return set(self.queues)

    def get_actor(self, actor_name: str) -> dramatiq.Actor[Any, Any]:
        """Look an actor up; the gem's NoopWorker, and those of steps that the package runs, are always there."""
        actor = self.actors.get(actor_name)
        if actor is not None:
            return actor
        if actor_name in NOOP_CLASSES:
            if self._noop is None:
                self._noop = noop_actor(self, actor_name)
            return self._noop
        if is_own(actor_name):
            return noop_actor(self, actor_name)
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
          InvalidArguments, InvalidOptions: if an argument or option cannot be written as JSON.
          EncoderIgnored: if the application has set an encoder of its own.
          StepEnqueuedItself: if it is the message of the step that this thread works on.
          ConnectionClosed: if Redis cannot be reached.
          NotReplicated: if the job was pushed, and too few replicas have it.
        """
        self.check_encoder()
        job = current_job()
        if job is not None:
            check_not_itself(message, job)
        hooked = self.has_enqueue_hooks
        if hooked:
            self.emit_before("enqueue", message, delay)
        now = time.time()
        of_actor = self._options.get(message.actor_name, DEFAULTS)
        queue, payload = self.sender.payload(message, of_actor, self.inherit, queued=not is_later(delay), now=now)
        unconfirmed = self.sender.push(queue, payload, delay, message.message_id, now=now)
        mark_sent(message)
        if hooked:
            self.emit_after("enqueue", message, delay)
        if unconfirmed is not None:
            raise unconfirmed
        return message

    def enqueue_many(
        self, messages: Iterable[dramatiq.Message[Any]], *, delay: int | None = None
    ) -> list[dramatiq.Message[Any]]:
        """Push messages as :meth:`enqueue` does, a thousand in one round trip.

        Messages of one actor and queue with equal options are written together, unless a
        middleware has enqueue hooks.

        Parameters:
          messages: Of any actors.  A list or tuple is checked as a whole before the first
            message is pushed, any other iterable a thousand messages at a time.
          delay: Milliseconds, the same for all.

        Returns:
          The messages.

        Raises:
          As :meth:`enqueue`.  Each error has an attribute ``sent``: the messages that are in Redis.
        """
        return self.bulk.enqueue(messages, delay)

    # -- consuming ----------------------------------------------------------

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> SidekiqConsumer:
        """A consumer of a declared queue.

        Parameters:
          prefetch: The least number of jobs to hold in flight.
          timeout: Milliseconds to wait for a job before giving back None.

        Raises:
          QueueNotFound: if the queue was never declared.
        """
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        correct_log(queue_name)
        self.process.mind_fork()
        return SidekiqConsumer(self.process, queue_name, prefetch, timeout)

    def stop_fetching(self) -> None:
        """Start no new jobs until the worker is restarted (Sidekiq's ``quiet``)."""
        self.process.stop_fetching()

    # -- steering -------------------------------------------------

    def pause_queue(self, queue_name: str) -> None:
        """Stop all Python workers, and Sidekiq Pro, from fetching from a queue; running jobs continue."""
        queues.pause(self.connection, queue_name)

    def unpause_queue(self, queue_name: str) -> None:
        """Resume a paused queue; workers notice within a second."""
        queues.unpause(self.connection, queue_name)

    def cancel(self, jid: str) -> None:
        """Cancel a job of a cancellable actor, or a Ruby iterable job."""
        processes.cancel(self.connection, jid, now=time.time())

    # -- cleaning and waiting -----------------------------------------------

    def flush(self, queue_name: str) -> None:
        """Drop the jobs of a queue, including those that are scheduled or retried."""
        queues.clear(self.connection, queue_name)
        for name in (keys.SCHEDULE, keys.RETRY):
            sets.remove(self.connection, name, sets.members_of(self.connection, name, queue_name))

    def flush_all(self) -> None:
        """Drop the jobs of all declared queues."""
        for queue_name in self.get_declared_queues():
            self.flush(queue_name)

    def join(self, queue_name: str, *, interval: int = 20, timeout: int | None = None) -> None:
        """Wait until a queue has nothing waiting, in flight, scheduled or to be retried.  For tests.

        Parameters:
          interval, timeout: Milliseconds.

        Raises:
          QueueJoinTimeout: if the timeout passes first.
        """
        join(self.connection, queue_name, interval / 1000, None if timeout is None else timeout / 1000)

    def close(self) -> None:
        """Stop this process's threads and connections; in a forked child, leave the parent's alone."""
        self.process.close()
        self.connection.close()
