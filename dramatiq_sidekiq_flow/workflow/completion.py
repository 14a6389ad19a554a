"""Where a finished job advances its workflow.

:meth:`Completion.advance` is called from ``Consumer.ack``.  It sends one
script that takes the job out of flight, keeps its output, counts down its
barriers and pushes what follows.  A chain step always fires, so its plan goes
along at once: one round trip.  A group's children send none; the last one is
told which callback fires, builds that plan and sends again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from dramatiq.errors import ConnectionClosed
from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..broker.message import SidekiqMessage, new_jid
from ..errors import BarrierExpired, WrongType
from ..store import runs
from ..store.connection import LOST
from ..store.memory import RedisHashMemory
from ..store.runs import Walk
from ..typed import ruby
from ..typed.registry import Registry
from ..wire.callbacks import Callback
from ..wire.dialect import NOOP_CLASSES, WORKFLOW, Dialect
from ..wire.nodes import NOOP_CLASS, Wire
from ..wire.payload import DEFAULTS, RETRY_HORIZON, Payload
from .plan import Plan, Source, barrier_ttl, completes_at_once, plan


class Completion:
    """Advances runs for one broker.

    Parameters:
      memory: Where returned mappings are kept; None keeps none.
      classes: Options of Ruby classes: name -> ``{"queue": ..., "retry": ...}``.
      tag_runs: Tag each job with ``wf:`` and the first 8 characters of its run.
      registry: What is known of classes that nothing here says anything of.
      dialect: Of the runs that start here; each job goes on in its own.
    """

    def __init__(
        self,
        broker: SidekiqBroker,
        memory: RedisHashMemory | None = None,
        classes: Mapping[str, Mapping[str, Any]] | None = None,
        tag_runs: bool = False,
        registry: Registry | None = None,
        dialect: Dialect = WORKFLOW,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = broker
        self.memory = memory
        self.classes = dict(classes or {})
        self.tag_runs = tag_runs
        self.registry = registry or Registry(broker.connection)
        self.dialect = dialect
        self._warned: set[str] = set()

    # -- what a step is pushed with -------------------------------------------

    def options(self, name: str) -> Mapping[str, Any]:
        """The options that a class or actor has of itself; Sidekiq's defaults where it is known nowhere."""
        found = self.known(name)
        return DEFAULTS if found is None else {**DEFAULTS, **found}

    def known(self, name: str) -> Mapping[str, Any] | None:
        """What is said of a class or actor, nearest first; None where nothing is.

        The actor in this process, ``WorkflowMiddleware(classes=...)``, RubyJob,
        and for what these leave open the registry.

        Raises:
          ConnectionClosed: where the registry is needed and cannot be reached:
            a guess would send the step where nobody takes it.
        """
        own = self.broker.options_of(name)
        if own is not None or name in NOOP_CLASSES:
            return own
        of_class, declared = self.classes.get(name), ruby.declared(name)
        said = None if of_class is None and declared is None else {**(declared or {}), **(of_class or {})}
        if said is not None and "queue" in said and "retry" in said:
            return said
        try:
            entry = self.registry.find(name)
        except LOST as e:
            raise ConnectionClosed(e) from None
        return said if entry is None else {**entry.options, **(said or {})}

    def of_step(self, node: Wire) -> Mapping[str, Any]:
        """As :meth:`options`, for a step; warns where its queue is a guess."""
        name = node["class"]
        found = self.known(name)
        if found is not None:
            return {**DEFAULTS, **found}
        if "queue" not in node and name not in self._warned:
            self._warned.add(name)
            self.logger.warning(
                "Nothing is known of %s, so its jobs go to queue %r with Sidekiq's retries. If its sidekiq_options "
                "say otherwise, say so here: RubyJob(%r, queue=..., retry=...).",
                name,
                DEFAULTS["queue"],
                name,
            )
        return DEFAULTS

    def noop_queue(self, finished: str | None = None) -> str:
        """A queue that somebody consumes, for a job that does nothing.

        ``default``, as the gem has it, where this process consumes it; else
        the queue that the finished job came from.
        """
        declared = self.broker.get_declared_queues()
        if "default" in declared or not (finished or declared):
            return "default"
        return finished or min(declared)

    def source(self, run_id: str | None, *, finished: Payload | None = None, queue: str | None = None) -> Source:
        """Where a plan takes ids, time and options from."""
        return Source(
            run_id=run_id,
            now=time.time(),
            options=self.of_step,
            new_jid=new_jid,
            new_barrier=_new_barrier,
            noop_queue=self.noop_queue(queue),
            inherited=finished.inherited() if finished else {},
            tags=(f"wf:{run_id[:8]}",) if self.tag_runs and run_id else (),
            dialect=finished.dialect if finished else self.dialect,
        )

    def writes(self, planned: Plan) -> runs.Writes:
        """A plan as the scripts take it."""
        return runs.writes(self.broker.connection, planned.barriers, planned.pushes, planned.scheduled)

    def started(self, run_id: str, planned: Plan, *, before: bool) -> None:
        """A run was started, or had been before; its jobs are where they belong."""

    # -- the advance ------------------------------------------------------------

    def advance(self, message: SidekiqMessage) -> None:
        """Go on after a job that succeeded.

        Raises:
          BarrierExpired, WrongType, InvalidOutput: the run cannot go on;
            nothing was written, the job is still in flight.
          ConnectionClosed: Redis cannot be reached; calling again is safe.
        """
        payload = message.payload
        fields: dict[str, bytes] = {}
        memory = ("", 0)
        if self.memory is not None and payload.run_id is not None and isinstance(message.output, Mapping):
            fields = self.memory.encode(message.output)
            memory = (self.memory.speaking(payload.dialect).key(payload.run_id), self.memory.ttl_seconds)
        if not payload.stack and not fields:
            self.broker.commit.done(message.member, message.receipt)
            return

        delays = b"with_delay" in payload.raw
        ttl = barrier_ttl(None, payload.stack) if delays else RETRY_HORIZON
        walk = [Walk(callback.barrier, kind_of(callback)) for callback in reversed(payload.stack)]
        planned = 1 if walk and walk[0].kind == "f" else 0
        ready: Plan | None = None
        while True:
            if planned and ready is None:
                remaining = payload.stack[-planned].remaining
                assert remaining is not None
                source = self.source(payload.run_id, finished=payload, queue=message.queue_name)
                ready = plan(remaining, payload.stack[:-planned], source, delays=delays)
            reply = self.broker.commit.run(
                runs.advance(
                    message.member,
                    message.receipt,
                    payload.jid,
                    walk,
                    ttl=ttl,
                    memory=memory,
                    fields=fields,
                    planned=planned,
                    plan=self.writes(ready) if ready is not None else runs.NOTHING,
                )
            )
            outcome = reply[0]
            if outcome == b"DONE":
                if ready is not None and ready.scheduled:
                    self.broker.poller.nudge(ready.scheduled[0][0])
                return
            if outcome == b"GONE":
                self.logger.debug("Job %s had left flight: sent twice, or recovered elsewhere.", payload.jid)
                return
            if outcome == b"PLAN":
                planned, ready = int(reply[1]), None
            elif outcome == b"EXPIRED":
                raise BarrierExpired(
                    f"The barrier {reply[1].decode()} is gone, so the run cannot go on from here. "
                    "It expired, or somebody removed it.",
                    reply[1].decode(),
                )
            elif outcome == b"TYPE":
                raise WrongType(
                    f"The Redis key {reply[1].decode()!r} holds another type than a workflow needs there.", reply[1]
                )
            # STAGE: the chunks vanished before they were committed; lay them down again.


def kind_of(callback: Callback) -> str:
    """What happens when a callback's barrier releases, as :class:`runs.Walk` names it."""
    remaining = callback.remaining
    if remaining is not None:
        # What remains may be empty: then it completes at once, and the walk goes on.
        return "n" if completes_at_once(remaining) else "f"
    return "n" if callback.propagate else "s"


def _new_barrier() -> str:
    return str(uuid.uuid4())


def describe(names: Iterable[str]) -> str:
    """Names for an error message."""
    return ", ".join(sorted(names)) or "none"


__all__ = ["NOOP_CLASS", "Completion", "describe"]
