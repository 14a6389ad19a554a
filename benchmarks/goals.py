"""What the package is to reach, and whether a run has reached it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from .document import Document

OURS = "sidekiq-flow"
REDIS = "redis-broker"
#: The newest first: rows about the gem take the first one that was measured.
RUBY = ("sidekiq-8", "sidekiq-7")

Value = Callable[[Document], "float | None"]


@attrs.frozen
class Goal:
    """One row.

    Attributes:
      title: What is compared with what.
      value: What a run has measured; None if it has not.
      bound: What the value must reach, or stay within.
      at_least: Whether a larger value is better.
      unit: Behind the value; x is a ratio.
    """

    title: str
    value: Value
    bound: float
    at_least: bool = False
    unit: str = "x"

    def reached(self, document: Document) -> bool | None:
        """None if it was not measured."""
        value = self.value(document)
        if value is None:
            return None
        return value >= self.bound if self.at_least else value <= self.bound


def ratio(measure: str, figure: str, *peers: str) -> Value:
    """Ours divided by the first of these peers that has the figure."""

    def value(document: Document) -> float | None:
        found = (document.ratio(measure, figure, OURS, peer) for peer in peers)
        return next((one for one in found if one is not None), None)

    return value


def ours(measure: str, figure: str) -> Value:
    """Our own figure."""
    return lambda document: document.value(measure, figure, OURS)


def growth(measure: str, base: str, *figures: str) -> Value:
    """Our sum of figures of one measure, divided by that of another."""

    def value(document: Document) -> float | None:
        above = [document.value(measure, figure, OURS) for figure in figures]
        below = [document.value(base, figure, OURS) for figure in figures]
        total = _sum(below)
        whole = _sum(above)
        return whole / total if whole is not None and total else None

    return value


def bytes_ratio(measure: str, *peers: str) -> Value:
    """Our bytes in and out, divided by those of the first of these peers that has them."""

    def value(document: Document) -> float | None:
        mine = _bytes(document, measure, OURS)
        theirs = next((found for peer in peers if (found := _bytes(document, measure, peer))), None)
        return mine / theirs if mine is not None and theirs else None

    return value


def _bytes(document: Document, measure: str, peer: str) -> float | None:
    return _sum([document.value(measure, figure, peer) for figure in BYTES])


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


SIDEKIQ_8 = RUBY[0]
VERDICTS = {True: "reached", False: "missed", None: "not measured"}
BYTES = ("bytes_in", "bytes_out")

GOALS = (
    Goal("no-op jobs, 1 process / Sidekiq 8", ratio("throughput-1", "rate", SIDEKIQ_8), 2, True),
    Goal("no-op jobs, 1 process / RedisBroker", ratio("throughput-1", "rate", REDIS), 15, True),
    Goal("no-op jobs, 2 processes / Sidekiq 8's two", ratio("throughput-2", "rate", SIDEKIQ_8), 2, True),
    Goal("chain of 100: time a step / the gem", ratio("chain-100", "step", *RUBY), 0.4),
    Goal("chain of 100: network reads a step", ours("chain-100", "reads"), 1.3, unit=""),
    Goal("chain of 100: commands a step", ours("chain-100", "commands"), 12, unit=""),
    Goal("chain of 1,000: time a step / of 100", growth("chain-1000", "chain-100", "step"), 1.2),
    Goal("chain of 1,000: bytes a step / of 100", growth("chain-1000", "chain-100", *BYTES), 1.2),
    Goal("chain of 10,000: time a step / of 100", growth("chain-10000", "chain-100", "step"), 1.2),
    Goal("chain of 10,000: bytes a step / of 100", growth("chain-10000", "chain-100", *BYTES), 1.2),
    Goal("mixed chain of 1,000: time a step / of 100", growth("chain-mixed-1000", "chain-mixed-100", "step"), 1.2),
    Goal("mixed chain of 1,000: bytes a step / of 100", growth("chain-mixed-1000", "chain-mixed-100", *BYTES), 1.2),
    Goal("chain of 10: bytes a step / the gem", bytes_ratio("chain-10", *RUBY), 1),
    Goal("member of a group: time / the gem", ratio("members-1", "member", *RUBY), 0.55),
    Goal("member of a group: network reads", ours("members-1", "reads"), 0.1, unit=""),
    Goal("member of a group: commands", ours("members-1", "commands"), 5, unit=""),
    Goal("join of 10,000: time a member / of a group", growth("join", "members-10000", "member"), 1.2),
    Goal("run() of a group of 10,000 / the gem", ratio("group-10000", "start", *RUBY), 1 / 15),
    Goal("run() of a group of 100,000: longest script", ours("group-100000", "longest"), 50, unit=" ms"),
    Goal("send() / perform_async", ratio("send", "rate", *RUBY), 1.3, True),
    Goal("send_many() / Sidekiq 8's perform_bulk", ratio("bulk-actor", "rate", SIDEKIQ_8), 1, True),
    Goal("enqueue_many() / Sidekiq 8's perform_bulk", ratio("bulk-broker", "rate", SIDEKIQ_8), 1, True),
    Goal("idle latency, p50 / Sidekiq", ratio("latency", "p50", *RUBY), 1),
    Goal("idle latency, p99 / Sidekiq", ratio("latency", "p99", *RUBY), 1),
    Goal("with 1 ms of latency: no-op jobs / Sidekiq", ratio("throughput-1ms", "rate", *RUBY), 3, True),
    Goal("with 1 ms of latency: time a step / the gem", ratio("chain-1ms", "step", *RUBY), 1 / 3),
    Goal("with 1 ms of latency: time a member / the gem", ratio("members-1ms", "member", *RUBY), 1 / 3),
    Goal("jobs of 10 ms, 10 at once: of what is possible", ours("busy-10ms", "part"), 0.97, True),
    Goal("jobs of 100 ms, 10 at once: of what is possible", ours("busy-100ms", "part"), 0.97, True),
    Goal("coroutines, 100 at once: of what is possible", ours("busy-async", "part"), 0.97, True),
    Goal("backlog of 1,000,000: memory, 100,000 jobs / 10,000", ours("backlog", "growth"), 1.05),
    Goal("import / RedisBroker", ratio("boot", "import", REDIS), 1.15),
    Goal("memory of an idle worker / RedisBroker", ratio("boot", "rss", REDIS), 1.15),
)


def row(goal: Goal, document: Document) -> list[str]:
    """Title, value, bound, and whether it is reached."""
    value, reached = goal.value(document), goal.reached(document)
    shown = "-" if value is None else f"{value:.3g}{goal.unit}"
    bound = f"{'>=' if goal.at_least else '<='} {goal.bound:.3g}{goal.unit}"
    return [goal.title, shown, bound, VERDICTS[reached]]


def table(document: Document) -> str:
    """Each row: what was measured, the goal, and whether it is reached."""
    lines = ["GOALS", ""]
    for goal in GOALS:
        title, shown, bound, verdict = row(goal, document)
        lines.append(f"{title:<52}{shown:>12}   {bound:<12}{verdict}")
    states = [goal.reached(document) for goal in GOALS]
    lines += ["", f"{states.count(True)} reached, {states.count(False)} missed, {states.count(None)} not measured"]
    return "\n".join(lines)
