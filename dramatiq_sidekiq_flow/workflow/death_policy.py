"""Policies of a step that fails for good: MayFail and Catch.

The script that puts such a step into ``dead`` also pushes what takes its place: the
fallback, or a job that does nothing, with the step's callback stack.  The job in
``dead`` holds that stack aside, so a retry of it by hand runs it alone.

A step that Ruby with the plain gem buries, a person kills, or a recovery gives up is
found in ``dead`` by :func:`replace_dead`.  Ids derive from the step, so a plan that is
made twice makes the same jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
from dramatiq.errors import ConnectionClosed

from ..errors import FlowError
from ..store import sets
from ..store.connection import LOST
from ..store.needs import Needs
from ..store.outcomes import DONE, Operation
from ..store.runs import Writes
from ..store.step_records import Death
from ..wire import codec
from ..wire.callbacks import Callback
from ..wire.death_nodes import count_steps
from ..wire.lifetimes import barrier_ttl
from ..wire.nodes import Wire, validate
from ..wire.payload import DEFAULTS, Payload
from ..wire.payload_fields import COUNTS_AS_DONE, DEATH_KEY, DIED_AS_KEY, DIED_IN_KEY, STEP_KEY
from ..wire.references import is_reference
from ..wire.tree_times import completes_at_once
from .engine import Engine
from .plan import Plan
from .plan_ids import derived
from .transport import pour_committed

#: Most bytes of a callback stack that a dead step keeps without references to stored chains.
MOST_KEPT = 64 * 1024


class Run(Protocol):
    """Sends an operation, and returns its value."""

    def __call__(self, operation: Operation[bool], /) -> bool: ...


@attrs.frozen
class Replacement:
    """What takes the place of a step that is dead.

    Attributes:
      payload: The step as it goes to ``dead``, without its run.
      plan: The jobs in its place.
      needs: Keys of the run to keep alive.
      death: What the record of the run holds of it.
    """

    engine: Engine
    payload: bytes
    plan: Plan
    needs: Needs
    death: Death

    def write(
        self,
        run: Run,
        operation_of: Callable[[Writes], Operation[bool]],
        writes_of: Callable[[Plan], Writes] | None = None,
    ) -> None:
        """Write the death and the plan, in one step.

        Parameters:
          operation_of: Makes the operation, of the plan's keys and arguments.
          writes_of: Makes these; by default the transport does.

        Raises:
          WrongType: if a key holds another type; nothing is written.
          ConnectionClosed, redis.ConnectionError: if Redis cannot be reached; calling again is safe.
        """
        while True:
            writes = (writes_of or self.engine.transport.writes)(self.plan)
            if run(operation_of(writes)):
                break
        pour_committed(self.engine.broker, writes, DONE)
        self.engine.pushed(self.plan)


def replacement(engine: Engine, payload: Payload, raw: bytes, now: float) -> Replacement | None:
    """Plan what takes the place of a step that is dead; None if it has no policy.

    Parameters:
      payload: The step, with its callback stack.
      raw: The step as it would go to ``dead``.
      now: Epoch seconds.

    Raises:
      ConnectionClosed: if Redis cannot be reached.
    """
    if not _has_policy(payload):
        return None
    tree = _tree(engine, payload)
    if tree is None:
        return None
    ttl = barrier_ttl(tree, payload.stack)
    plan = _plan(engine, payload, tree, ttl)
    needs = engine.needs(payload)
    needs = attrs.evolve(needs, ttl=max(needs.ttl, plan.ttl))
    engine.extend_custom_barriers(payload, needs.ttl)
    fields = codec.decode(raw, limited=False)
    death = engine.records.of_death(payload, fields, now)
    ran = 0 if tree["__type__"] == "job" and tree.get("jid") == payload.jid else count_steps(tree)
    return Replacement(
        engine, codec.encode(_without_run(engine, fields, payload)), plan, needs, attrs.evolve(death, ran=ran)
    )


def replace_dead(engine: Engine, member: bytes) -> None:
    """Let others take the place of a step that is in ``dead`` with its policy.

    Parameters:
      member: The job as it is in ``dead``; any other job stays as it is.

    Raises:
      PayloadError: if the job cannot be read.
      ConnectionClosed, redis.ConnectionError: if Redis cannot be reached; calling again is safe.
    """
    payload = Payload.decode(member, engine.stacks.retrieve)
    found = replacement(engine, payload, member, time.time())
    if found is None:
        return
    needs, death = found.needs, found.death

    def operation(plan: Writes) -> Operation[bool]:
        return sets.replace_dead(member, found.payload, needs=needs, death=death, plan=plan)

    try:
        found.write(engine.broker.process.commit.run, operation)
    except LOST as e:
        raise ConnectionClosed(e) from None


def handle_dead(engine: Engine, job: Payload) -> bool:
    """As :func:`replace_dead`, for the upkeep: log an error; return False if the job has no policy.

    Raises:
      ConnectionClosed, redis.ConnectionError: if Redis cannot be reached; calling again is safe.
    """
    if DEATH_KEY not in job.fields:
        return False
    try:
        replace_dead(engine, job.raw)
    except (ConnectionClosed, *LOST):
        raise
    except Exception as e:
        engine.logger.warning("Nothing takes the place of the dead step %s yet: %s", job.jid, e)
    return True


def _has_policy(payload: Payload) -> bool:
    """Return True for a step with a policy whose callback stack, if it has one, was read."""
    is_read = bool(payload.stack) or not payload.fields.get(payload.dialect.callbacks_key)
    return DEATH_KEY in payload.fields and payload.run_id is not None and is_read


def _tree(engine: Engine, payload: Payload) -> Wire | None:
    """Get the tree that takes the place of a step; None if its policy cannot be read."""
    policy = payload.fields[DEATH_KEY]
    try:
        if policy != COUNTS_AS_DONE:
            validate(policy)
    except FlowError as e:
        engine.logger.error("Step %s is dead, and its fallback cannot be started: %s", payload.jid, e)
        return None
    if policy == COUNTS_AS_DONE or completes_at_once(policy):
        return _in_its_place(payload)
    tree: Wire = policy
    return tree


def _in_its_place(payload: Payload) -> Wire:
    """Make a job that does nothing, with the jid and the number of the step."""
    return {
        "__type__": "job",
        "class": payload.dialect.noop_class,
        "args": [],
        "jid": payload.jid,
        "queue": _queue_of(payload),
        "retry": True,
        **({} if payload.step is None else {STEP_KEY: payload.step}),
    }


def _queue_of(payload: Payload) -> str:
    queue = payload.fields.get("queue")
    return queue if type(queue) is str and queue else str(DEFAULTS["queue"])


def _plan(engine: Engine, payload: Payload, tree: Wire, ttl: int) -> Plan:
    hooks = engine.transport.hooks(None)
    if hooks is not None:
        # The step is dead, whatever a hook raises.
        hooks.raising = False
    source = engine.source(
        payload.run_id,
        finished=payload,
        queue=_queue_of(payload),
        # A step that starts anew, and dies once more, has another time.
        ids=derived(f"{payload.run_id}:{payload.jid}:{payload.fields.get('created_at')}:death"),
        hooks=hooks,
    )
    plan = engine.plan(tree, payload.stack, source, ttl)
    if hooks is not None:
        hooks.after()
    return plan


def _without_run(engine: Engine, fields: Mapping[str, Any], payload: Payload) -> dict[str, Any]:
    """Take a job out of its run: a retry by hand can neither count in it nor end it."""
    of_run = (payload.dialect.callbacks_key, payload.dialect.run_id_key, DEATH_KEY, STEP_KEY)
    kept = {key: value for key, value in fields.items() if key not in of_run}
    taken = {key: fields[key] for key in of_run if key in fields}
    if any(callback.remaining is not None and is_reference(callback.remaining) for callback in payload.stack):
        taken[payload.dialect.callbacks_key] = _kept_stack(engine, payload, fields)
    return {**kept, DIED_IN_KEY: payload.run_id, DIED_AS_KEY: taken}


def _kept_stack(engine: Engine, payload: Payload, fields: Mapping[str, Any]) -> Any:
    """Make the stack that a dead step keeps: whole, if that is not large, since stored chains go with their run."""
    kept = fields[payload.dialect.callbacks_key]
    try:
        stack = [_whole(engine, callback) for callback in payload.stack]
    except FlowError:
        return kept
    return stack if payload.retrieved is False and len(codec.encode(stack)) <= MOST_KEPT else kept


def _whole(engine: Engine, callback: Callback) -> list[Any]:
    remaining = callback.remaining
    return attrs.evolve(callback, remaining=remaining and engine.stacks.whole(remaining)).dump()
