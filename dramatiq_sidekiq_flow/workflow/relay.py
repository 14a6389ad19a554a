"""Where a finished step advances its run on another Dramatiq broker.

RedisBroker, RabbitmqBroker and StubBroker acknowledge a message by
themselves, so a step cannot leave flight and advance in one script.  Instead,
in ``before_ack``: count (one script, idempotent), then enqueue what follows,
then let the broker acknowledge.  A crash in between repeats; the ids of what
follows derive from the barrier's id, so that a repetition counts once.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import attrs
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import MiddlewareError, SkipMessage

from ..broker import ruby_features
from ..broker.bridge import Bridge, is_away
from ..broker.gateway import Gateway
from ..broker.local import encode, is_step, to_local, to_payload
from ..broker.message import SidekiqMessage
from ..broker.step_hooks import StepHooks
from ..errors import ConfigurationError, FlowError, StepRejected, StepSkipped
from ..store import relay, runs, sets
from ..store.chains import stored_keys
from ..store.runs import Walk
from ..wire.payload import DEFAULTS, Payload, failed
from .completion import Completion, kind_of, refusal
from .plan import Ids, Plan, Source, barrier_ttl, derived
from .ttl import keep


class StepUnsettled(FlowError, MiddlewareError, BrokerConnectionError):
    """What follows a step could not be written: Dramatiq tries again, without running the actor again."""


class NotReady(ConfigurationError, MiddlewareError):
    """A ConfigurationError that also stops a worker from starting."""


@attrs.define
class Step:
    """What is known of a message while this process works on it."""

    message_id: str
    payload: Payload | None = None
    ended: bool = False
    skipped: bool = False
    requeued: bool = False
    output: Any = None
    exception: BaseException | None = None
    corpse: bytes = b""


class Relay(Completion):
    """Advances runs whose Python steps travel on another broker.

    Parameters:
      gateway: The Sidekiq Redis; its ``local`` is the broker.
      others: As for Completion.
    """

    broker: Gateway
    #: The first steps are enqueued on the other broker, perhaps twice.
    derives_ids = True

    def __init__(self, gateway: Gateway, *others: Any) -> None:
        super().__init__(gateway, *others)
        if self.barriers is not None or self.retrieve is not None:
            raise NotReady(
                "Barriers and callback storages of your own need a SidekiqBroker: on another broker, what is counted "
                "and what follows are not written in one place.",
                gateway.local,
            )
        self.local = gateway.local
        self.bridge = Bridge(gateway)
        # Its consumer refuses steps that nobody would go on with.
        gateway.completion = self
        self._doing = threading.local()

    # -- starting ----------------------------------------------------------------

    def source(
        self,
        run_id: str | None,
        *,
        finished: Payload | None = None,
        queue: str = "default",
        ids: Ids | None = None,
        hooks: StepHooks | None = None,
    ) -> Source:
        """As Completion's, but the ids of a run's first steps derive from its id."""
        if finished is None and run_id:
            ids = derived(f"run:{run_id}")
        return super().source(run_id, finished=finished, queue=queue, ids=ids, hooks=hooks)

    def hooks(self, message: SidekiqMessage | None = None) -> None:
        """None: the other broker's ``enqueue`` calls them."""

    def writes(self, planned: Plan) -> runs.Writes:
        """What the scripts write: barriers, and what goes to Sidekiq's queues."""
        return super().writes(self._split(planned)[0])

    def started(self, run_id: str, planned: Plan, *, before: bool) -> None:
        """Enqueue a run's first steps here, unless that is known to have been done."""
        steps = self._split(planned)[1]
        if not steps or (before and relay.is_enqueued(self.broker.connection, run_id)):
            return
        self._enqueue(steps)
        relay.enqueued(self.broker.connection, run_id)

    def _split(self, planned: Plan) -> tuple[Plan, list[tuple[float | None, Payload]]]:
        """A plan for Sidekiq's queues, and the steps (with their times, where delayed) of this broker."""
        here: list[tuple[float | None, Payload]] = []
        pushes: dict[str, tuple[bytes, ...]] = {}
        for queue, payloads in planned.pushes.items():
            away = []
            for raw in payloads:
                if (payload := self._local(raw)) is not None:
                    here.append((None, payload))
                else:
                    away.append(raw)
            if away:
                pushes[queue] = tuple(away)
        scheduled = []
        for at, raw in planned.scheduled:
            if (payload := self._local(raw)) is not None:
                here.append((at, payload))
            else:
                scheduled.append((at, raw))
        return attrs.evolve(planned, pushes=pushes, scheduled=tuple(scheduled)), here

    def _local(self, raw: bytes) -> Payload | None:
        payload = Payload.decode(raw)
        return payload if payload.actor_name in self.local.actors else None

    def _enqueue(self, steps: list[tuple[float | None, Payload]]) -> None:
        for at, payload in steps:
            delay = None if at is None else max(0, round((at - time.time()) * 1000))
            self.local.enqueue(to_local(payload, str(payload.fields["queue"])), delay=delay)

    # -- one message ---------------------------------------------------------------

    def begin(self, message: Any) -> Payload | None:
        """An actor is about to run; returns the job, where it is one of a workflow."""
        if not is_step(message):
            return None
        step = message.workflow_step = self._doing.step = Step(message.message_id)
        try:
            step.payload = self._payload(message)
            ruby_features.check(step.payload)
        except SkipMessage:
            message.workflow_step = self._doing.step = None
            raise
        except FlowError as e:
            # Its run could not go on after it: it is not run, and goes to `dead`.
            self.logger.error("Message %s cannot be run and goes to 'dead': %s", message.message_id, e)
            step.exception = e
            message.fail()
        return step.payload

    def _payload(self, message: Any, *, strict: bool = True) -> Payload:
        return to_payload(message, self.broker.options_of(message.actor_name) or DEFAULTS, strict=strict)

    def end(self, message: Any, output: Any, exception: BaseException | None, *, skipped: bool = False) -> None:
        """The actor has run, or failed, or was skipped."""
        step = _step(message)
        if step is not None:
            step.ended, step.output, step.skipped = True, output, skipped
            step.exception = exception or step.exception

    def enqueued(self, message: Any) -> None:
        """A message was enqueued: perhaps the one that this thread works on, to be tried again."""
        step: Step | None = getattr(self._doing, "step", None)
        if step is not None and message.message_id == step.message_id:
            step.requeued = True

    def settle(self, message: Any) -> None:
        """The broker is about to acknowledge a message.

        Raises:
          StepUnsettled: what follows could not be written; called again later.
        """
        step = _step(message)
        # A message that only moves out of a delay queue was never begun.
        if step is None or not step.ended:
            return
        with _trying(message):
            payload = step.payload or self._payload(message, strict=False)
            if step.exception is not None and step.requeued:
                self._keep(payload)
            elif step.exception is not None:
                # Nobody retries it: Dramatiq would call it done. It is not.
                self._bury(message, step.exception)
            elif step.skipped:
                self._bury(
                    message, StepSkipped("A middleware skipped the step, so what follows it waits.", message.message_id)
                )
            else:
                try:
                    self._advance(message, step, payload)
                except FlowError as e:
                    if isinstance(e, StepUnsettled):
                        raise
                    self.logger.error("Step %s is done, but cannot go on, and is now in 'dead': %s", payload.jid, e)
                    self._bury(message, e)
                except Exception as e:
                    if is_away(e):
                        raise
                    self.logger.exception("What follows step %s cannot be enqueued; it is now in 'dead'.", payload.jid)
                    self._bury(message, e)
        self._doing.step = None

    def reject(self, message: Any) -> None:
        """The broker is about to put a message among its dead letters.

        Raises:
          StepUnsettled: as :meth:`settle`.
        """
        if not is_step(message):
            return
        step = _step(message)
        error = (step and step.exception) or message._exception
        if error is None:
            error = StepRejected("The message was rejected by the worker or a middleware.", message.message_id)
        with _trying(message):
            self._bury(message, error)
        self._doing.step = None

    def _keep(self, payload: Payload) -> None:
        if payload.run_id is not None:
            keep(self, payload, None)

    def _bury(self, message: Any, error: BaseException) -> None:
        """Into Sidekiq's ``dead``: visible, and retried from there it comes back over the bridge."""
        step = _step(message) or Step(message.message_id)
        message.workflow_step = step
        payload = step.payload or self._payload(message, strict=False)
        if payload.fields.get("dead") is False or (payload.fields.get("retry") is False and error is step.exception):
            if payload.run_id is None and not payload.stack:
                return  # discarded, as Sidekiq does
            self.logger.warning(
                "Step %s (%s) of run %s failed and has retry: false or dead: false, but its run waits for it: it is in "
                "'dead', and retrying it there resumes the run.",
                payload.jid,
                payload.actor_name,
                payload.run_id,
            )
        now = time.time()
        if not step.corpse:
            # Once: called again, the same bytes are the same member.
            fields = failed(payload.fields, error, now=now, queue=str(payload.fields["queue"]))
            step.corpse = encode(attrs.evolve(payload, fields=fields))
        memory, least = self.memory_of(payload)
        also = [*stored_keys(c.remaining for c in payload.stack), *([memory] if memory else [])]
        ttl = max(_horizon(payload) + sets.DEAD_TIMEOUT, least)
        reply = self.broker.commit.run(
            relay.bury(step.corpse, now=now, barriers=[c.barrier for c in payload.stack], also=also, ttl=ttl)
        )
        if reply[0] == b"TYPE":
            raise StepUnsettled(f"The Redis key {reply[1].decode()!r} is not a sorted set. Remove it.", reply[1])

    # -- the advance -----------------------------------------------------------------

    def _advance(self, message: Any, step: Step, payload: Payload) -> None:
        memory, fields = self.output(payload, step.output)
        if not payload.stack and not fields:
            return
        if payload.stack:
            # As long as the run: it is never shortened.
            memory = (memory[0], max(memory[1], _horizon(payload)))
            self.keep_chains(payload.stack, _horizon(payload))
        walk = [Walk(callback.barrier, kind_of(callback)) for callback in reversed(payload.stack)]
        planned = 1 if walk and walk[0].kind == "f" else 0
        while True:
            writes = runs.NOTHING
            ready: Plan | None = None
            steps: list[tuple[float | None, Payload]] = []
            if planned:
                callback = payload.stack[-planned]
                assert callback.remaining is not None
                queue = str(payload.fields["queue"])
                ids = derived(callback.barrier)
                source = self.source(payload.run_id, finished=payload, queue=queue, ids=ids)
                ready, steps = self._split(self.plan(callback.remaining, payload.stack[:-planned], source))
                writes = Completion.writes(self, ready)
            reply = self.broker.commit.run(
                relay.count(
                    payload.jid,
                    walk,
                    ttl=_horizon(payload),
                    memory=memory,
                    fields=fields,
                    planned=planned,
                    elsewhere=bool(steps),
                    plan=writes,
                )
            )
            outcome = reply[0]
            if outcome in (b"DONE", b"FIRE"):
                # The barriers must be there before a step is enqueued that counts one down.
                self.pour(writes)
            if outcome == b"FIRE":
                self._enqueue(steps)
                self.broker.commit.run(relay.fired(walk[:planned]))
            if outcome in (b"DONE", b"FIRE"):
                self.release_chains(ready)
                return
            if outcome == b"PLAN":
                planned = int(reply[1])
            elif outcome != b"STAGE":
                raise refusal(reply)
            # STAGE: what was staged has vanished; stage it again.


def _step(message: Any) -> Step | None:
    return getattr(message, "workflow_step", None)


def _horizon(payload: Payload) -> int:
    return barrier_ttl(None, payload.stack)


class _trying:
    """Turns whatever goes wrong inside into what Dramatiq tries again."""

    def __init__(self, message: Any) -> None:
        self.message = message

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, StepUnsettled):
            raise StepUnsettled(
                f"What follows step {self.message.message_id} could not be written yet: {error!r}", error
            ) from error


__all__ = ["Relay", "StepUnsettled"]
