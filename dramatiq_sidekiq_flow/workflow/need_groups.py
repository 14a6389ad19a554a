"""Groups that need some of their members, when their carrier comes to a worker: Ruby has pushed it."""

from __future__ import annotations

from ..broker.message import SidekiqMessage
from ..errors import InvalidPayload, shortened
from ..wire.need import group_of
from ..wire.nodes import validate
from ..wire.payload import Payload
from .engine import Engine
from .replacement import Tree, start_instead


def start_group(message: SidekiqMessage, engine: Engine) -> None:
    """Start a group in the place of its carrier, which is acknowledged.  Repeated calls are safe.

    Raises:
      InvalidPayload, InvalidNode: if the carrier cannot be read.
      QueueShared: if a Ruby process consumes the queue of a Python step.
      BarrierExpired, WrongType: if the run cannot continue.
    """
    start_instead(message, _tree(message.payload, engine), engine)


def _tree(payload: Payload, engine: Engine) -> Tree:
    """Make the tree of a carrier, whose steps have their numbers and namespaces."""
    if group_of(payload.fields) is None:
        raise InvalidPayload(f"A carrier of a group holds no group: {shortened(payload.fields)}.", payload.raw)
    wire = {"__type__": "job", **payload.fields}
    wire = {key: wire[key] for key in _OF_NODE if key in wire}
    validate(wire)
    return Tree.placed(wire, engine)


#: What is read of a carrier.
_OF_NODE = ("__type__", "class", "args", "swf_group")
