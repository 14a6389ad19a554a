"""What remains of a chain, by reference.

A callback stack carries the rest of each chain, so a chain of a thousand steps
carries it a thousand times.  Stored once, it is a list of values, one a step,
linked by their hashes from the end::

    value = SHA256 of the next value (empty at the end) + ":" + the step's JSON

and the payload holds, in place of the tree::

    {"__type__": "reference", "chain": SHA256 of the first value,
     "at": index, "sha": SHA256 of the value there, "delay": MILLISECONDS}

The step after it is the same chain at the next index, so nothing is stored
again on the way; and each value that is read can be checked by itself.
``delay`` is what the delays of the whole chain add up to, left out where it is
0: barriers must outlive it.  The Ruby companion writes the same.  A chain that
belongs to one run is stored under another SHA256, which takes its barrier in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ..errors import CallbacksMissing, InvalidNode, shortened
from . import codec
from .nodes import Wire, completes_at_once, latest_start, total_delay, validate

_SHA = re.compile(rb"[0-9a-f]{64}")


def is_reference(node: Wire) -> bool:
    """Whether this stands for a tree that is stored elsewhere."""
    return bool(node["__type__"] == "reference")


def may_refer(tree: Wire, min_bytes: int) -> bool:
    """Whether a reference may take the place of a tree: a chain of so many bytes, as JSON, that has something to run.

    A reference does not say when a job starts, so none of its jobs may have an ``at``.
    """
    if tree["__type__"] != "chain" or completes_at_once(tree) or latest_start(tree):
        return False
    return len(codec.encode(tree)) >= min_bytes


def refer(children: Sequence[Wire], owner: str = "") -> tuple[Wire, list[bytes]]:
    """A reference to a chain of these steps, and the values to store under it.

    Steps at the end that have nothing to run are left out, so that a reference
    always stands for something to run.  There must be one.

    Parameters:
      owner: The id of the barrier that the chain follows: it is then stored
        apart from equal chains.
    """
    values: list[bytes] = []
    sha = ""
    for child in reversed(children):
        if values or not completes_at_once(child):
            value = sha.encode() + b":" + codec.encode(child)
            values.append(value)
            sha = digest(value)
    values.reverse()
    chain = digest(f"{owner}:{sha}".encode()) if owner else sha
    return _reference(chain, 0, sha, sum(map(total_delay, children))), values


def follow(reference: Wire, value: bytes) -> tuple[Wire, Wire | None]:
    """The step that a reference points at, and the reference to what comes after it.

    Raises:
      CallbacksMissing: for a value that is not the one that was stored.
      InvalidNode: if a stored value is not a tree, or does not name the value after it.
      MalformedPayload: if it is not JSON.
    """
    if digest(value) != reference["sha"]:
        raise CallbacksMissing(
            f"Step {reference['at']} of the stored chain {reference['chain']} is not what was stored there.", reference
        )
    following, _, child = value.partition(b":")
    if following and _SHA.fullmatch(following) is None:
        raise InvalidNode(
            f"Step {reference['at']} of the stored chain {reference['chain']} does not name the step after it by a "
            f"SHA256, but says {shortened(following)}.",
            value,
        )
    node = codec.decode_value(child)
    validate(node)
    if not following:
        return node, None
    sha = following.decode("ascii")
    return node, _reference(reference["chain"], reference["at"] + 1, sha, reference.get("delay", 0))


def digest(value: bytes) -> str:
    """How a value is named."""
    return hashlib.sha256(value).hexdigest()


def _reference(chain: str, at: int, sha: str, delay: float) -> Wire:
    reference: Wire = {"__type__": "reference", "chain": chain, "at": at, "sha": sha}
    if delay:
        reference["delay"] = int(delay) if delay == int(delay) else delay
    return reference
