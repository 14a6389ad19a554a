"""What is explored: workflows, faults and their number; and what each must show."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from . import ours
from .explorer import Model
from .gem import Gem, Mixed
from .ours import Protocol
from .world import Flow

CHAIN = Flow(("chain", ["a", "b", "c"]))
GROUP = Flow(("chain", [("group", ["a", "b"]), "tail"]))
TRIPLE = Flow(("chain", [("group", ["a", "b", "c"]), "tail"]))
#: Two barriers, one in the other: a chain in a group in a chain.
NESTED = Flow(("chain", [("group", [("chain", ["a", "b"]), "c"]), "tail"]))
#: A group in a group: the inner one's barrier is a unit of the outer one's.
GROUPS = Flow(("chain", [("group", [("group", ["a", "b"]), "c"]), "tail"]))


@attrs.frozen
class Configuration:
    """One exploration.

    Attributes:
      finds: The property that must not hold; empty where all must.
      deep: It takes minutes.
    """

    name: str
    model: Callable[[], Model]
    finds: str = ""
    deep: bool = False


def _ours(name: str, flow: Flow, faults: int, *, deep: bool = False) -> Configuration:
    return Configuration(f"{name}, {faults} faults", lambda: Protocol(flow, faults=faults), deep=deep)


def _fast(name: str, flow: Flow, faults: int, *, deep: bool = False) -> Configuration:
    def model() -> Model:
        return Protocol(flow, faults=faults, keeps=True, hands_over=True)

    return Configuration(f"kept: {name}, {faults} faults", model, deep=deep)


def _mixed(name: str, ruby: list[str], faults: int) -> Configuration:
    # An expired barrier, and a death that is retried by hand, are the gem's to deal with where Ruby counts it.
    kinds = ours.EVERY - {"expire", "expire apart", "by hand"}
    return Configuration(f"{name}, {faults} faults", lambda: Mixed(NESTED, ruby, faults=faults, kinds=kinds))


def _gem(name: str, kind: str, finds: str) -> Configuration:
    return Configuration(name, lambda: Gem(GROUP, faults=1, kinds=frozenset({kind})), finds)


def _broken(name: str, flow: Flow, faults: int, finds: str) -> Configuration:
    return Configuration(name, lambda: Protocol(flow, faults=faults, broken=name), finds)


def _broken_fast(name: str, flow: Flow, faults: int, finds: str) -> Configuration:
    def model() -> Model:
        return Protocol(flow, faults=faults, broken=name, keeps=True, hands_over=True)

    return Configuration(name, model, finds)


#: This package's protocol: every kind of fault, in every place.
OURS = [
    _ours("chain of 3", CHAIN, 3),
    _ours("group of 2 and tail", GROUP, 2),
    _ours("chain in group in chain", NESTED, 2),
    _ours("group in group in chain", GROUPS, 2),
    _ours("group of 2 and tail", GROUP, 3, deep=True),
    _ours("chain in group in chain", NESTED, 3, deep=True),
]

#: The same, where a worker keeps the next job of a chain, and hands over steps of a group.
FAST = [
    _fast("chain of 3", CHAIN, 2),
    _fast("group of 3 and tail", TRIPLE, 1),
    _fast("chain in group in chain", NESTED, 1),
    _fast("group in group in chain", GROUPS, 1),
    _fast("chain of 3", CHAIN, 3, deep=True),
    _fast("group of 2 and tail", GROUP, 2, deep=True),
    _fast("chain in group in chain", NESTED, 2, deep=True),
]

#: Ruby workers with the plain gem beside ours: faults of Python's workers do no harm to the run.
MIXED = [
    _mixed("Ruby has a of the group", ["a"], 2),
    _mixed("Ruby has b and the tail", ["b", "tail"], 2),
    _mixed("Ruby has the member c", ["c"], 2),
]

#: The plain gem's known faults, by their numbers.
GEM = [
    Configuration("gem, no fault", lambda: Gem(NESTED, faults=0)),
    _gem("gem 1: a barrier expires", "expire", "lost"),
    _gem("gem 2: enqueueing raises", "raise", "lost"),
    _gem("gem 3: a member runs twice", "duplicate", "early"),
    _gem("gem 4: a worker is killed", "crash", "lost"),
]

#: Our protocol with one thing left out: what the model must miss.
BROKEN = [
    _broken("gate", CHAIN, 2, "place"),
    _broken("taken out", CHAIN, 0, "stuck"),
    _broken("units", GROUP, 1, "early"),
    _broken("ran", CHAIN, 1, "doubled"),
    _broken("barrier check", CHAIN, 1, "lost"),
    _broken("read before write", GROUP, 0, "lost"),
    _broken("plan in the same step", CHAIN, 1, "lost"),
    _broken("start marker", CHAIN, 1, "doubled"),
    _broken("fetch twice", GROUP, 1, "lost"),
    _broken("late fetch", CHAIN, 2, "lost"),
    _broken("reconcile", CHAIN, 1, "lost"),
    _broken_fast("offered receipt", CHAIN, 1, "lost"),
    _broken_fast("left step", GROUP, 0, "lost"),
    _broken_fast("group units", TRIPLE, 1, "early"),
]
