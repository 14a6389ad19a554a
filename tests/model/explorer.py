"""Visits every state that a model can reach, breadth first: the first problem found has the shortest trace."""

from __future__ import annotations

import gc
import time
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from .world import Move, State, canonical


class Model(Protocol):
    def first(self) -> State: ...

    def moves(self, state: State) -> Iterable[Move]:
        """What can happen next.  Moves that leave all as it is may be among them."""

    def problem(self, state: State) -> str:
        """The property that does not hold in a state; empty where all do."""

    def ending(self, state: State) -> str:
        """How it ends where nothing can move: "done", "dead", or "PROPERTY: what is wrong"."""


class Result(NamedTuple):
    """What exploring a model has found.

    Attributes:
      endings: How many states in which nothing can move have which ending.
      problem: "PROPERTY: what is wrong"; empty where every property holds.
      trace: The shortest way to the problem, in words.
    """

    states: int
    transitions: int
    seconds: float
    endings: dict[str, int]
    problem: str
    trace: list[str]

    @property
    def property(self) -> str:
        return self.problem.split(":")[0]


def explore(model: Model, most: int = 2_000_000) -> Result:
    """Explore a model to the end, or to its first problem.

    Parameters:
      most: The most states; a model with more is not small, and an error.
    """
    # States have no cycles: looking for some among them would take a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _explore(model, most)
    finally:
        if collecting:
            gc.enable()


def _explore(model: Model, most: int) -> Result:
    began = time.monotonic()
    states = [canonical(model.first())]
    numbers = {states[0]: 0}
    came_from = array("l", [-1])
    how: list[tuple[str, ...]] = [()]
    #: Pairs of states, for the question whether an end can be reached.
    edges = array("l")
    ends: list[int] = []
    endings: Counter[str] = Counter()
    transitions = 0

    def result(problem: str, at: int) -> Result:
        seconds = time.monotonic() - began
        return Result(len(states), transitions, seconds, dict(endings), problem, _trace(at) if problem else [])

    def _trace(at: int) -> list[str]:
        words = []
        while at > 0:
            words.append("".join(how[at]))
            at = came_from[at]
        return words[::-1]

    at = 0
    while at < len(states):
        state = states[at]
        can_move = False
        for words, reached in model.moves(state):
            following = canonical(reached)
            if following == state:
                continue
            transitions += 1
            # Faults need not happen.
            can_move = can_move or following.faults == state.faults
            number = numbers.get(following)
            if number is None:
                number = numbers[following] = len(states)
                states.append(following)
                came_from.append(at)
                how.append(words)
                problem = following.problem or model.problem(following)
                if problem:
                    return result(problem, number)
                if number > most:
                    raise RuntimeError(f"More than {most} states.")
            edges.append(at)
            edges.append(number)
        if not can_move:
            ending = model.ending(state)
            if ending not in ("done", "dead"):
                return result(ending, at)
            endings[ending] += 1
            ends.append(at)
        at += 1
    lost = _first_without_end(len(states), edges, ends)
    return result("stuck: no end can be reached from here" if lost is not None else "", lost or 0)


def _first_without_end(count: int, edges: array[int], ends: list[int]) -> int | None:
    """The first state from which none of the ends can be reached."""
    # The edges sorted by where they lead to, without a list for each state.
    first = array("l", bytes(8 * (count + 1)))
    for to in edges[1::2]:
        first[to + 1] += 1
    for number in range(count):
        first[number + 1] += first[number]
    place, sources = array("l", first), array("l", bytes(4 * len(edges)))
    for at in range(0, len(edges), 2):
        to = edges[at + 1]
        sources[place[to]] = edges[at]
        place[to] += 1
    reached = bytearray(count)
    stack = list(ends)
    for number in stack:
        reached[number] = 1
    while stack:
        number = stack.pop()
        for source in sources[first[number] : first[number + 1]]:
            if not reached[source]:
                reached[source] = 1
                stack.append(source)
    missing = reached.find(0)
    return None if missing < 0 else missing
