"""Steps of random workflows: what each of them does, the nodes that stand for them, and what must run in which order.

A step of a planted tree is a dictionary, so that it can be an argument of a job:

  kind     ``step``; ``may fail`` and ``dies``, which are dead after their first end; ``lives``, whose fallback does
           not run; ``mends``, which is dead until it is retried by hand; ``grows`` and ``adds``, which others replace;
           ``waits``, for a signal; ``late``, whose signal does not come in time; ``spare``, in a group of two that
           needs one of them
  n        its number, depth first; those that do not run have numbers from OTHERS on
  of       its class and its queue
  options  what it is told
  inner    the tree that takes its place
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import attrs

from dramatiq_sidekiq_flow import Catch, Chain, Group, Job, MayFail, WaitFor, WithDelay
from tests.trees import Shape

from .settings import Settings

#: Numbers of steps that do not run.
OTHERS = 100_000

#: Kinds, and how many of a hundred steps are of them; the others only run.
KINDS = {"may fail": 4, "dies": 4, "lives": 2, "mends": 2, "grows": 5, "adds": 3, "waits": 4, "late": 2, "spare": 4}

#: Those that only Python runs.
OF_PYTHON = frozenset({"mends", "grows", "adds"})

#: Those that have a tree of their own.
WITH_INNER = frozenset({"dies", "lives", "grows", "adds"})

#: The queue of steps that wait.
QUEUE = "python"


def signal_of(number: int) -> str:
    """The signal for which a step waits."""
    return f"signal{number}"


@attrs.define
class Planting:
    """Makes the tree of one run.

    Attributes:
      run: Its number.
      places: Class and queue of the steps of each language; Python's are the last.
      dead: Steps that are dead in the end.
      mended: Steps that stop the run until they are retried.
      waits: Steps that wait for a signal.
      skipped: Steps that do not run.
    """

    run: int
    rng: random.Random
    settings: Settings
    places: Sequence[tuple[str, str]]
    dead: set[int] = attrs.field(factory=set)
    mended: set[int] = attrs.field(factory=set)
    waits: set[int] = attrs.field(factory=set)
    skipped: set[int] = attrs.field(factory=set)
    _numbers: Any = attrs.field(factory=itertools.count)
    _others: Any = attrs.field(factory=lambda: itertools.count(OTHERS))

    @property
    def sets(self) -> dict[str, set[int]]:
        """The numbers that are kept, by kind."""
        return {"dies": self.dead, "may fail": self.dead, "mends": self.mended, "waits": self.waits}

    def tree(self, shape: Shape, depth: int = 2, *, runs: bool = True) -> tuple[Any, Shape]:
        """Plant steps in a shape; the tree, and the shape of what runs."""
        if shape == "job":
            return self._leaf(depth, runs=runs)
        if shape[0] == "delay":
            tree, ran = self.tree(shape[2], depth, runs=runs)
            return ["delay", shape[1], tree], ("delay", shape[1], ran)
        parts = [self.tree(child, depth, runs=runs) for child in shape[1]]
        return [shape[0], [tree for tree, _ in parts]], (shape[0], [ran for _, ran in parts])

    def _leaf(self, depth: int, *, runs: bool) -> tuple[Any, Shape]:
        rng = self.rng
        kind = self._kind(depth) if runs else "step"
        number = next(self._numbers if runs else self._others)
        if kind in self.sets:
            self.sets[kind].add(number)
        if not runs:
            self.skipped.add(number)
        options = {"ms": rng.randrange(self.settings.longest + 1), "fail": self.settings.fail}
        if kind in ("dies", "may fail", "mends"):
            options |= {"fail": 0, kind.replace("may fail", "dies"): True}
        place = self.places[-1] if kind in OF_PYTHON else rng.choice(list(self.places))
        leaf = {"kind": kind, "run": self.run, "n": number, "of": place, "options": options}
        if kind == "spare":
            other = {**leaf, "kind": "step", "n": next(self._numbers)}
            return ["any", [leaf, other]], ("any", ["job", "job"])
        if kind not in WITH_INNER:
            return leaf, "job"
        children = ["job"] * rng.randrange(1, 3)
        leaf["inner"], ran = self.tree((rng.choice(["chain", "group"]), children), depth - 1, runs=kind != "lives")
        return leaf, "job" if kind == "lives" else ("chain", ["job", ran])

    def _kind(self, depth: int) -> str:
        found = self.rng.randrange(100)
        for kind, share in KINDS.items():
            found -= share
            if found < 0:
                return kind if depth or kind not in WITH_INNER else "step"
        return "step"


def node(tree: Any) -> Any:
    """The node of a planted tree."""
    if isinstance(tree, dict):
        return _leaf(tree)
    if tree[0] == "delay":
        return WithDelay(node(tree[2]), timedelta(milliseconds=tree[1]))
    if tree[0] == "any":
        return Group(*map(node, tree[1]), need=1)
    return (Chain if tree[0] == "chain" else Group)(*map(node, tree[1]))


def _leaf(leaf: dict[str, Any]) -> Any:
    name, queue = leaf["of"]
    kind, inner = leaf["kind"], leaf.get("inner")
    options = {**leaf["options"], "kind": kind, **({"inner": inner} if kind in ("grows", "adds") else {})}
    rules = {"retry": 0} if kind in ("dies", "may fail", "mends") else {}
    job = Job(name, leaf["run"], leaf["n"], options, queue=queue, **rules)
    if kind in ("dies", "lives"):
        return Catch(job, node(inner))
    if kind == "may fail":
        return MayFail(job)
    if kind == "waits":
        return Chain(WaitFor(signal_of(leaf["n"]), queue=QUEUE), job)
    if kind == "late":
        return WaitFor(signal_of(leaf["n"]), 200, job, queue=QUEUE)
    return job
