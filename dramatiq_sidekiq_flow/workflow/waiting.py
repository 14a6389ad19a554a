"""Steps that wait for a signal to their run (``WaitFor``), when their turn comes at a worker."""

from __future__ import annotations

import time
from typing import Any

from ..broker.message import SidekiqMessage
from ..errors import SignalTimeout
from ..store import run_signals
from ..store.outcomes import Gone, RunCancelled
from ..store.run_signals import Arrival, Parked, Signalled
from ..wire import codec
from ..wire.lifetimes import DEAD_TIMEOUT
from ..wire.nodes import Wire, jobs
from ..wire.payload_fields import STEP_KEY
from ..wire.run_tree import dump_tree
from ..wire.step_numbers import number_steps
from ..wire.tree_times import completes_at_once
from ..wire.wait_for import UNTIL_KEY, Wait
from .engine import Engine
from .finished_job import SETTLED, Settled
from .replacement import Tree, start_instead, tree_of, unnumbered

#: Keys of a step that died since its time was over; a retry by hand waits anew.
_OF_DEATH = frozenset(("error_class", "error_message", "error_backtrace"))


def arrive(message: SidekiqMessage, engine: Engine) -> dict[str, Any] | Settled | None:
    """Let a step wait, unless its signal is there or its time is over.  Repeated calls are safe.

    Returns:
      Its output, if it goes on now: the data of its signal, by the name of the signal; None without data.
      Settled if it waits, or was acknowledged in another way.

    Raises:
      SignalTimeout: if its time is over, and nothing runs in its place.
      InvalidPayload, InvalidNode: if its arguments cannot be read.
      BarrierExpired, WrongType: if the run cannot continue.
    """
    payload = message.payload
    wait = Wait.of(payload.args, payload.fields, payload.raw)
    now = time.time()
    until = _limit(wait, now)
    match _park(message, wait, until, now, engine):
        case Parked():
            message.waits = True
            engine.broker.process.poller.nudge(until - now)
            return SETTLED
        case Signalled(data):
            return _output(wait, data, engine)
        case Gone() | RunCancelled():
            return SETTLED
        case _:
            return _time_out(message, wait, engine)


def _output(wait: Wait, data: bytes, engine: Engine) -> dict[str, Any] | None:
    value = codec.decode_value(data)
    return None if value is None or engine.memory is None else {wait.name: value}


def _limit(wait: Wait, now: float) -> float:
    """Epoch seconds until which a step waits."""
    return wait.until or now + (DEAD_TIMEOUT if wait.timeout is None else wait.timeout / 1000)


def _park(message: SidekiqMessage, wait: Wait, until: float, now: float, engine: Engine) -> Arrival:
    payload = message.payload
    assert payload.run_id is not None
    fields = {key: value for key, value in payload.fields.items() if key not in _OF_DEATH}
    return engine.broker.process.commit.run(
        run_signals.wait(
            message.member,
            message.receipt,
            payload.run_id,
            name=wait.name,
            jid=payload.jid,
            queue=message.queue_name,
            until=until,
            payload=codec.encode_payload({**fields, UNTIL_KEY: until}),
            is_over=until <= now,
            needs=engine.needs(payload, waits=max(0.0, until - now)),
            record=engine.records.key_of(payload),
        )
    )


def _time_out(message: SidekiqMessage, wait: Wait, engine: Engine) -> Settled | None:
    """End a step whose time is over; return None if it ends as any other, without an output.

    Raises:
      SignalTimeout: if nothing runs in its place.
    """
    if wait.otherwise is None:
        raise SignalTimeout(
            f"The signal {wait.name!r} did not come in time. Runs.signal(...) and a retry of this job let the run go "
            "on; the retry alone waits anew.",
            wait.name,
        )
    if completes_at_once(wait.otherwise):
        return None
    start_instead(message, _tree(wait.otherwise, engine), engine)
    return SETTLED


def _tree(wire: Wire, engine: Engine) -> Tree:
    """Make the tree that runs instead, with the numbers and the compact form that the records of this process need."""
    for job in jobs(wire):
        job.pop(STEP_KEY, None)
    if not engine.records.enabled:
        return unnumbered(wire, engine)
    counts = number_steps(wire, lambda job: job["class"] in engine.broker.actors)
    return tree_of(wire, dump_tree(wire, engine.is_ruby, engine.records.arguments), counts, engine)
