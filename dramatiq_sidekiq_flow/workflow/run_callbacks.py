"""Callbacks of a run: jobs that its record holds, ready to be pushed by a script (``_run_callback.lua``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import FlowError, InvalidWorkflow
from ..typed.actor import TypedActor
from ..typed.call_input import RUN_FIELD
from ..typed.schema import Schema
from ..wire import codec
from ..wire.nodes import Wire
from ..wire.payload_fields import CALLBACK_KEY
from .engine import Engine
from .plan import Source, job_fields
from .records import RunInfo

#: Mappings that a callback may be given.
_DONE: Mapping[str, Any] = {"run_id": "id", "template": None, "state": "done"}
_DIED: Mapping[str, Any] = {
    **_DONE,
    "state": "failed",
    "step": 1,
    "jid": "jid",
    "class": "extract",
    "queue": "python",
    "error_class": "ValueError",
    "error_message": "no",
    "at": 1.5,
    "inferred": True,
}


def check_call(engine: Engine, name: str, job: Wire) -> None:
    """Check that a job can take the mapping of a callback: a typed actor takes it as the field ``run``.

    The job of a typed actor then has one argument, so that two arguments tell its worker of a callback.

    Raises:
      InvalidWorkflow: if it cannot.
    """
    actor = engine.broker.actors.get(job["class"])
    if isinstance(actor, TypedActor) and actor.input is not None:
        job["args"] = job["args"] or [{}]
        _check_typed(actor, actor.input, name, job["args"][0])


def _check_typed(actor: TypedActor[Any], schema: Schema, name: str, given: Mapping[str, Any]) -> None:
    try:
        # Two ends of runs, since the keys depend on how a run ended.
        for run in (_DONE, _DIED):
            schema.check({**given, RUN_FIELD: run})
    except FlowError as e:
        raise InvalidWorkflow(
            f"{name}: the typed actor {actor.actor_name} cannot take the mapping of the run: {e} Declare the field "
            f"{RUN_FIELD}: dict[str, Any] in {schema.name}.",
            actor,
        ) from None


def encode_calls(engine: Engine, run_id: str, info: RunInfo | None) -> dict[str, bytes]:
    """Make the fields of a record that hold the callbacks of a run."""
    if info is None or not info.calls:
        return {}
    source = engine.source(run_id, first=True)
    given = {"run_id": run_id, "template": info.template or None}
    return {name: _encode(job, source, name, given) for name, job in info.calls.items()}


def _encode(job: Wire, source: Source, name: str, given: Mapping[str, Any]) -> bytes:
    """Make a field: the payload up to the end of the mapping, which is left open, and the queue."""
    fields = job_fields(job, source)
    arguments = fields.pop("args")
    fields[CALLBACK_KEY] = name.removeprefix("on_")
    payload = codec.encode_payload({**fields, "args": [*arguments, given]})
    return payload.removesuffix(b"}]}") + b"\n" + str(fields["queue"]).encode()
