"""References to stored chains, in place of the remaining steps.

A callback stack carries the rest of each chain, so a chain of a thousand steps
carries it a thousand times.  A stored chain is a list of values, one per step,
linked by their hashes from the end::

    value = SHA256 of the next value (empty at the end) + ":" + the step's JSON

and the payload holds, in place of the tree::

    {"__type__": "reference", "chain": SHA256 of the first value,
     "at": index, "sha": SHA256 of the value there, "delay": MILLISECONDS}

The reference to the next step has the same chain and the next index, so the
chain is stored only once, and each value can be checked on its own.
``delay`` is the time that barriers must outlive: the sum of the delays of the
whole chain, and a day for each Ruby step that may run without extending them.
It is left out if it is 0.  The Ruby companion writes the same, without such days.  A
chain that belongs to one run is stored under another SHA256, which includes its
barrier.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ..errors import CallbacksMissing, InvalidNode, shortened
from . import codec
from .nodes import Wire, validate
from .tree_times import completes_at_once, latest_start, total_delay

_SHA = re.compile(rb"[0-9a-f]{64}")


def is_reference(node: Wire) -> bool:
    """Return True if a node is a reference to a stored tree."""
    return bool(node["__type__"] == "reference")


def may_refer(tree: Wire, min_bytes: int) -> bool:
    """Return True if a tree may be stored: a chain of at least ``min_bytes`` of JSON that has something to run.

    A reference does not carry start times, so none of its jobs may have an ``at``.
    """
    if tree["__type__"] != "chain" or completes_at_once(tree) or latest_start(tree):
        return False
    return len(codec.encode(tree)) >= min_bytes


def refer(children: Sequence[Wire], owner: str = "", extra: int = 0) -> tuple[Wire, list[bytes]]:
    """Make a reference to a chain of these steps, and the values to store under it.

    Trailing steps that have nothing to run are left out, so that a reference
    always leads to a step.  At least one step must have something to run.

    Parameters:
      owner: The id of the barrier that the chain follows, to store the chain
        separately from equal chains.
      extra: Milliseconds that are added to the sum of the delays.
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
    return _reference(chain, 0, sha, sum(map(total_delay, children)) + extra), values


def follow(reference: Wire, value: bytes, *, checked: bool = False) -> tuple[Wire, Wire | None]:
    """Read the step that a reference points at, and make the reference to the next step.

    Parameters:
      checked: True if the SHA256 of the value was compared before.

    Raises:
      CallbacksMissing: if the value differs from the stored one.
      InvalidNode: if the value is not a tree, or does not name the next value.
      MalformedPayload: if it is not JSON.
    """
    if not checked and digest(value) != reference["sha"]:
        raise CallbacksMissing(
            f"Step {reference['at']} of the stored chain {reference['chain']} is not the value that was stored.",
            reference,
        )
    following, _, child = value.partition(b":")
    if following and _SHA.fullmatch(following) is None:
        raise InvalidNode(
            f"Step {reference['at']} of the stored chain {reference['chain']} must name the next step by its SHA256, "
            f"not {shortened(following)}.",
            value,
        )
    node = codec.decode_value(child)
    validate(node)
    if not following:
        return node, None
    sha = following.decode("ascii")
    return node, _reference(reference["chain"], reference["at"] + 1, sha, reference.get("delay", 0))


def digest(value: bytes) -> str:
    """Return the SHA256 of a value in hex digits, which is its name."""
    return hashlib.sha256(value).hexdigest()


def _reference(chain: str, at: int, sha: str, delay: float) -> Wire:
    reference: Wire = {"__type__": "reference", "chain": chain, "at": at, "sha": sha}
    if delay:
        reference["delay"] = int(delay) if delay == int(delay) else delay
    return reference
