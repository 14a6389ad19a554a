"""Start of a run: its marker, its seeded memory, its barriers and first jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import ConfigurationError, NotReplicated
from ..store import runs
from ..store.memory import RedisHashMemory
from ..store.outcomes import AlreadyStarted, Outcome, StageLost, Taken
from ..store.replication import Unconfirmed
from ..store.runs import NO_OUTPUT, MemoryKey, Output
from ..store.step_records import RunRecord
from ..wire.lifetimes import barrier_ttl
from ..wire.nodes import Wire
from ..wire.run_end import with_end
from .engine import Engine
from .plan import Plan
from .records import RunInfo
from .run_callbacks import encode_calls
from .run_start import dump_start
from .transport import pour


@attrs.frozen
class Started:
    """Result of a start.

    Attributes:
      run_id: The run; another one if that has the unique key.
      unconfirmed: An error for the caller to raise at the end, if the run has
        started but too few replicas confirmed it.
    """

    run_id: str
    unconfirmed: NotReplicated | None = None


def start(
    engine: Engine, run_id: str, wire: Wire, seed: Mapping[str, Any] | None, info: RunInfo | None = None
) -> Started:
    """Start a run, once for its id.  Repeated calls are safe.

    Parameters:
      wire: A valid tree.
      seed: Values to write to the run's memory before its first job exists.
      info: Description of the run for its record; None for a run without one.

    Raises:
      ConfigurationError: if there is a seed but no memory.
      QueueShared: if a Ruby process consumes the queue of a Python step.
      ConnectionClosed, redis.ConnectionError: if Redis cannot be reached.
    """
    calls = {} if info is None else info.calls
    _check(engine, wire, *calls.values())
    kept = b"" if info is None or not info.repeatable else dump_start(wire, seed, info)
    wire, info = _ended(engine, wire, info)
    output = _seeded(engine, run_id, seed)
    ttl = barrier_ttl(wire, ())
    hooks = engine.transport.hooks(None)
    source = engine.source(
        run_id,
        first=True,
        ids=engine.transport.start_ids(run_id),
        queue=engine.precheck.noop_queue(wire),
        hooks=hooks,
    )
    plan = engine.plan(wire, (), source, ttl)
    if not plan.completes:
        memory = attrs.evolve(output.memory, ttl=max(output.memory.ttl, ttl))
        output = attrs.evolve(output, memory=memory)
    record = engine.records.of_run(
        run_id, info, ttl=ttl, completes=plan.completes, calls=encode_calls(engine, run_id, info)
    )
    started = _write(engine, run_id, plan, ttl, output, attrs.evolve(record, start=kept))
    if started.holder:
        return Started(started.holder)
    pour(engine.broker.connection, started.writes)
    engine.transport.started(run_id, plan, before=started.before)
    if hooks is not None and not started.before:
        hooks.after()
    return Started(run_id, started.unconfirmed)


def _ended(engine: Engine, wire: Wire, info: RunInfo | None) -> tuple[Wire, RunInfo | None]:
    """Let a Python worker end a run with a record whose last steps Ruby may run, if a queue of Python's is known."""
    if info is None or not info.ends_in_ruby:
        return wire, info
    queue = engine.precheck.end_queue(wire)
    if queue is None:
        return wire, info
    return with_end(wire, engine.settings.dialect.noop_class, queue), attrs.evolve(info, end=queue)


def _check(engine: Engine, *trees: Wire) -> None:
    for tree in trees:
        engine.precheck.check(tree)


@attrs.frozen
class _Written:
    """Result of writing the start of a run.

    Attributes:
      writes: The keys and arguments that were sent.
      before: True if an earlier call started the run; nothing was written.
      unconfirmed: The error if too few replicas confirmed the start.
      holder: The run that has the unique key, and lives; "" if this one started.
    """

    writes: runs.Writes
    before: bool
    unconfirmed: NotReplicated | None
    holder: str


def _write(engine: Engine, run_id: str, plan: Plan, ttl: int, output: Output, record: RunRecord) -> _Written:
    while True:
        writes = engine.transport.writes(plan)
        operation = runs.start(run_id, writes, ttl=ttl, output=output, record=record)
        unconfirmed: NotReplicated | None = None
        try:
            reply = engine.broker.connection.write(*operation.command)
        except Unconfirmed as e:
            # The run has started: the error is raised after the remaining work.
            reply, unconfirmed = e.reply, e.of_run(run_id)
        outcome = operation.read(reply)
        if not isinstance(outcome, StageLost):
            return _Written(writes, isinstance(outcome, AlreadyStarted), unconfirmed, _holder(outcome))


def _holder(outcome: Outcome) -> str:
    return outcome.run_id if isinstance(outcome, Taken) else ""


def _seeded(engine: Engine, run_id: str, seed: Mapping[str, Any] | None) -> Output:
    """Make the values that the start of a run writes to its memory; write to a custom memory here."""
    if not seed:
        return NO_OUTPUT
    memory = engine.memory
    if memory is None:
        raise ConfigurationError("Workflows have no memory for the seed: use WorkflowMiddleware(memory=...).", seed)
    if not isinstance(memory, RedisHashMemory):
        memory.write(run_id, seed)
        return NO_OUTPUT
    return Output(MemoryKey(memory.key(run_id), memory.ttl_seconds), memory.encode(seed))
