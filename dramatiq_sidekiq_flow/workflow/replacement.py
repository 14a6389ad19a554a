"""Replacement of a step: when it ends, a tree starts in its place, with its callback stack.

What follows the step waits for the tree, since the jobs of the tree carry the callbacks
that the step carried.  One script ends the step and writes the tree, or neither.
"""

from __future__ import annotations

import copy
from typing import Any

import attrs

from ..broker.message import SidekiqMessage
from ..errors import ConfigurationError
from ..store import replacements
from ..store.outcomes import Gone, Outcome, RunCancelled, StageLost
from ..store.replacements import NO_NUMBERS, Numbers, RunTotal, total_of
from ..wire.barrier import NewBarrier
from ..wire.callbacks import Callback
from ..wire.dialect import NOOP_CLASSES
from ..wire.lifetimes import barrier_ttl
from ..wire.nodes import Wire, jobs
from ..wire.payload import NAMESPACE_KEY, Payload
from ..wire.payload_fields import GROUP_KEY, MAX_STEPS, STEP_KEY, is_callback
from ..wire.references import is_reference
from ..wire.run_end import OF_RUN, OF_TREE, ends_in_ruby, with_end
from ..wire.tree_times import completes_at_once
from .carriers import make_carriers
from .engine import Engine
from .finished_job import FinishedJob
from .plan import Plan
from .transport import pour_committed
from .workflow import Workflow


@attrs.frozen
class Tree:
    """A tree that replaces a step.

    Attributes:
      wire: In wire form; its steps are numbered from 1, if the runs of this process have records.
      compact: As the record shows it; b"" without a record.
      total: Number of its steps, if they are numbered.
      skipped: Number of those that are in fallbacks.
      has_ruby: True if Ruby runs some of its steps.
      is_placed: True if it is a part of the tree of the run: its steps have their numbers there.
      ends_in_ruby: True if Ruby may run its last step, or one of them.
    """

    wire: Wire
    compact: bytes
    total: int
    skipped: int
    has_ruby: bool
    is_placed: bool = False
    ends_in_ruby: bool = False

    @classmethod
    def placed(cls, wire: Wire, engine: Engine) -> Tree:
        """Make a tree that is a part of the tree of the run."""
        return attrs.evolve(unnumbered(wire, engine), is_placed=True)


def cannot_replace(jid: str) -> ConfigurationError:
    """The error of a step that cannot be replaced on its broker."""
    return ConfigurationError(
        "A step can be replaced on a SidekiqBroker only, without barriers of your own: there the tree is written in "
        "the script that acknowledges the step. A callback of a run is not a step.",
        jid,
    )


def replace_step(job: FinishedJob, node: Any, engine: Engine) -> bool:
    """End a step that a tree replaces; return False, with nothing written, if the tree has nothing to run.

    Parameters:
      node: The tree, as it is given to Workflow.

    Raises:
      InvalidWorkflow, InvalidArguments, InvalidOptions: if the tree cannot run.
      ConfigurationError: if steps of this broker cannot be replaced.
      QueueShared: if a Ruby process consumes the queue of a Python step.
      BarrierExpired, WrongType: if the run cannot continue.
    """
    if not engine.transport.replaces or is_callback(job.payload.fields):
        raise cannot_replace(job.payload.jid)
    workflow = Workflow(node, engine.broker)
    assert job.payload.run_id is not None
    tree = _tree_of(workflow, job, engine)
    if completes_at_once(tree.wire):
        return False
    start_in_place(job, tree, engine)
    workflow.belongs_to(job.payload.run_id)
    return True


def _tree_of(workflow: Workflow, job: FinishedJob, engine: Engine) -> Tree:
    wire = workflow.wire_after(job.payload.jid)
    info = workflow.info({})
    return unnumbered(wire, engine) if info is None else tree_of(wire, info.tree, (info.total, info.skipped), engine)


def tree_of(wire: Wire, compact: bytes, counts: tuple[int, int], engine: Engine) -> Tree:
    """Make a tree of its wire form.

    Parameters:
      counts: What ``number_steps`` returned.
    """
    has_ruby = any(engine.is_ruby(job) for job in jobs(wire))
    return Tree(wire, compact, *counts, has_ruby, ends_in_ruby=has_ruby and ends_in_ruby(wire, engine.is_ruby))


def unnumbered(wire: Wire, engine: Engine) -> Tree:
    """Make a tree for runs without records."""
    return tree_of(wire, b"", (0, 0), engine)


def start_instead(message: SidekiqMessage, tree: Tree, engine: Engine) -> None:
    """Start a tree in the place of a step of the package, which has no output.  Repeated calls are safe.

    Raises:
      QueueShared, BarrierExpired, WrongType: as :func:`replace_step`.
    """
    payload = message.payload
    output, record = engine.outputs.of(payload, None), engine.records.of_step(payload, message.began)
    start_in_place(FinishedJob(payload, message.queue_name, output, message, record), tree, engine)


def start_in_place(job: FinishedJob, tree: Tree, engine: Engine) -> None:
    """End a step, and start a tree in its place.  Repeated calls are safe.

    Raises:
      QueueShared, BarrierExpired, WrongType: as :func:`replace_step`.
    """
    engine.precheck.check(tree.wire)
    ttl = barrier_ttl(tree.wire, job.payload.stack)
    engine.stacks.extend(job.payload, ttl)
    known = _total(job, tree, engine)
    while True:
        numbers = _numbers(job, tree, known)
        plan = _plan(job, tree, numbers, ttl, engine)
        outcome = _send(job, plan, numbers, ttl, engine)
        match outcome:
            case RunTotal():
                known = outcome
            case StageLost():
                continue
            case Gone() | RunCancelled():
                return
            case _:
                engine.pushed(plan)
                return


def _total(job: FinishedJob, tree: Tree, engine: Engine) -> RunTotal:
    """Read the number of steps of the run, unless its steps have no numbers."""
    if job.payload.step is None or not job.record.key or not tree.compact:
        return RunTotal("")
    return total_of(engine.broker.connection, job.record.key)


def _numbers(job: FinishedJob, tree: Tree, known: RunTotal) -> Numbers:
    """Number the tree behind the last step of the run."""
    before = int(known.value) if known.value.isdecimal() else 0
    if not before or before + tree.total > MAX_STEPS:
        return NO_NUMBERS
    return _numbers_from(before, job, tree)


def _numbers_from(before: int, job: FinishedJob, tree: Tree) -> Numbers:
    assert job.payload.step is not None
    added = b'{"first":%d,"tree":%b}' % (before + 1, tree.compact)
    return Numbers(str(before), before + tree.total, tree.skipped, job.payload.step, added)


def _plan(job: FinishedJob, tree: Tree, numbers: Numbers, ttl: int, engine: Engine) -> Plan:
    payload = job.payload
    hooks = engine.transport.hooks(job.message)
    source = engine.source(
        payload.run_id,
        first=True,
        finished=payload,
        queue=engine.precheck.noop_queue(tree.wire),
        hooks=hooks,
    )
    stack = _stack(job, tree, engine, source.ids.new_barrier())
    wire = tree.wire if tree.is_placed else _ended(_in_place(tree.wire, numbers, payload), job, tree)
    ready = engine.plan(wire, stack, attrs.evolve(source, number=None), ttl)
    if hooks is not None:
        hooks.after()
    return _with_barrier(ready, stack[-1]) if stack and stack[-1].kind == "f" else ready


def _with_barrier(plan: Plan, callback: Callback) -> Plan:
    """Add the barrier of a callback that fires after one unit."""
    return attrs.evolve(plan, barriers=(*plan.barriers, NewBarrier(callback.barrier, 1, plan.ttl)))


def _in_place(wire: Wire, numbers: Numbers, payload: Payload) -> Wire:
    """Copy a tree for the place of a step: its numbers follow those of the run, or are left out."""
    wire = copy.deepcopy(wire)
    for step in jobs(wire):
        _number(step, numbers)
        if payload.namespace:
            _name(step, payload.namespace)
        if step["class"] in NOOP_CLASSES:
            step["class"] = payload.dialect.noop_class
    return wire


def _ended(wire: Wire, job: FinishedJob, tree: Tree) -> Wire:
    """Let a Python worker end the run, if nothing comes after the tree, and Ruby may run a last step of it."""
    stack = job.payload.stack
    if not tree.ends_in_ruby or not job.record.key or any(callback.kind == "f" for callback in stack):
        return wire
    return with_end(wire, job.payload.dialect.noop_class, job.queue, OF_TREE if stack else OF_RUN)


def _number(step: Wire, numbers: Numbers) -> None:
    number = step.pop(STEP_KEY, None)
    if number is not None and numbers.before:
        step[STEP_KEY] = int(numbers.before) + number


def _name(step: Wire, namespace: str) -> None:
    """Put the output of a step into a namespace, too."""
    inner = step.get(NAMESPACE_KEY)
    step[NAMESPACE_KEY] = f"{namespace}.{inner}" if inner else namespace


def _stack(job: FinishedJob, tree: Tree, engine: Engine, barrier: str) -> tuple[Callback, ...]:
    """Make the callback stack of the tree from that of the step.

    The callback at its top has another barrier, if it fires: see ``replace.lua``.
    The step after the replaced one gets its number now, since it no longer follows
    the replaced one.

    Parameters:
      barrier: Id of the new barrier.
    """
    stack = list(job.payload.stack)
    if not stack:
        return ()
    if stack[-1].kind == "f":
        stack[-1] = attrs.evolve(stack[-1], barrier=barrier, remaining=_following(job, stack[-1].remaining))
    if tree.has_ruby:
        _let_ruby_push(stack, job.payload.dialect.noop_class, engine)
    return tuple(stack)


def _following(job: FinishedJob, remaining: Wire | None) -> Wire:
    """Give the first step of a tree its number, if it has none."""
    assert remaining is not None
    number = job.payload.step
    return remaining if number is None else _first_numbered(remaining, number + 1)


def _first_numbered(remaining: Wire, number: int) -> Wire:
    if is_reference(remaining):
        return {STEP_KEY: number, **remaining}
    remaining = copy.deepcopy(remaining)
    _number_first(remaining, number)
    return remaining


def _number_first(wire: Wire, number: int) -> None:
    """Number the first step of a tree, in place, unless it has a number."""
    first = next(jobs(wire), None)
    # The members of a group that a carrier holds have numbers.
    if first is not None and GROUP_KEY not in first:
        first.setdefault(STEP_KEY, number)


def _let_ruby_push(stack: list[Callback], noop_class: str, engine: Engine) -> None:
    """Let Ruby push what follows a tree that ends in Ruby: whole, and with carriers of Python's steps, in place."""
    fires = [index for index, callback in enumerate(stack) if callback.kind == "f"]
    # The others are pushed after a step of this one.
    for index in fires[-1:]:
        stack[index] = _carried_callback(stack[index], noop_class, engine)


def _carried_callback(callback: Callback, noop_class: str, engine: Engine) -> Callback:
    assert callback.remaining is not None
    return attrs.evolve(callback, remaining=_carried(callback.remaining, noop_class, engine))


def _carried(remaining: Wire, noop_class: str, engine: Engine) -> Wire:
    number = remaining.get(STEP_KEY)
    remaining = engine.stacks.chains.whole(remaining) if is_reference(remaining) else copy.deepcopy(remaining)
    if number is not None:
        _number_first(remaining, number)
    make_carriers(jobs(remaining), noop_class, engine)
    return remaining


def _send(job: FinishedJob, plan: Plan, numbers: Numbers, ttl: int, engine: Engine) -> Outcome | RunTotal:
    message = job.message
    assert message is not None
    writes = engine.transport.writes(plan)
    outcome = engine.broker.process.commit.run(
        replacements.replace(
            message.member,
            message.receipt,
            job.payload.jid,
            job.walk,
            ttl=max(ttl, plan.ttl),
            plan=writes,
            output=job.output,
            record=job.record,
            numbers=numbers,
        )
    )
    if not isinstance(outcome, RunTotal):
        pour_committed(engine.broker, writes, outcome)
    return outcome
