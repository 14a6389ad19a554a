"""Callbacks of a run: jobs that its record holds, ready to be pushed by a script (``_run_callback.lua``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidWorkflow
from ..typed.actor import TypedActor
from ..wire import codec
from ..wire.nodes import Wire
from ..wire.payload_fields import CALLBACK_KEY
from .engine import Engine
from .plan import Source, job_fields
from .records import RunInfo


def check_call(engine: Engine, name: str, job: Wire) -> None:
    """Check that a job can take the mapping of a callback, which has keys that no attribute can have.

    Raises:
      InvalidWorkflow: if it cannot.
    """
    actor = engine.broker.actors.get(job["class"])
    if isinstance(actor, TypedActor):
        raise InvalidWorkflow(
            f"{name}: the typed actor {actor.actor_name} cannot take the mapping of the run, whose keys depend on how "
            "the run ended. Declare it with dramatiq.actor.",
            actor,
        )


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
