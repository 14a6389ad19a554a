"""The plan of a run: what is disturbed, and when.  The same for the same seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Sequence

import attrs

from .settings import RATES


@attrs.frozen(order=True)
class Disturbance:
    """One of them."""

    #: Seconds from the beginning.
    at: float
    kind: str
    #: Which worker, where it is done to one; the next one takes its place where that is not up.
    slot: int
    #: From 0 to 1: how long or how much, as the kind takes it.
    degree: float


def plan(seed: int, seconds: float, slots: int, kinds: Collection[str] = tuple(RATES)) -> list[Disturbance]:
    """All disturbances of a run, in order.  Of each kind there is at least one.

    Parameters:
      seed: Of the random numbers; each kind has its own, so that leaving one
        kind out does not move the others.
      seconds: For how long.
      slots: How many workers there are.
      kinds: Which ones.
    """
    found = []
    for kind, rate in RATES.items():
        if kind not in kinds:
            continue
        rng = random.Random(f"{seed} {kind}")
        count = max(1, round(rate * seconds / 60))
        for number in range(count):
            at = (number + rng.random()) * seconds / count
            found.append(Disturbance(round(at, 3), kind, rng.randrange(slots), round(rng.random(), 3)))
    return sorted(found)


def digest(planned: Sequence[Disturbance]) -> str:
    """A short text that two equal plans share."""
    text = "\n".join(f"{d.at} {d.kind} {d.slot} {d.degree}" for d in planned)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
