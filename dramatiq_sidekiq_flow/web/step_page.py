"""Page of the steps of a run: those in one state, a hundred at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from ..runs import Run, Step
from ..runs.step_list import STATES, StepList
from .step_numbers_view import StepRange, state_counts, urgency
from .wording import number as numeral

#: Steps on a page.
ROWS = 100


@attrs.frozen
class StepQuery:
    """Which steps are shown.

    Attributes:
      state: Only the steps in this state; "" for all.
      page: From 1.
    """

    state: str = ""
    page: int = 1

    def parameters(self, page: int | None = None) -> dict[str, str | None]:
        """The parameters of its address, or of that of another page."""
        page = page or self.page
        return {"steps": self.state or None, "page": str(page) if page > 1 else None}


def step_query(parameters: Mapping[str, str]) -> StepQuery:
    """Read the parameters of an address."""
    page = parameters.get("page", "")
    state = parameters.get("steps", "")
    return StepQuery(state if state.isalpha() else "", int(page) if page.isdecimal() and len(page) < 9 else 1)


def page_of(number: int) -> int:
    """The page of all steps that has a step."""
    return (number - 1) // ROWS + 1


@attrs.frozen
class StepPage:
    """Steps of one page.

    Attributes:
      count: Number of steps on all pages.
      counts: State -> number of all steps of the run.
    """

    steps: Sequence[Step]
    query: StepQuery
    count: int
    counts: Mapping[str, int]

    @property
    def pages(self) -> int:
        """Number of pages."""
        return max(1, -(-self.count // ROWS))

    @property
    def place(self) -> str:
        """Which of the steps it has, in words."""
        first = (self.query.page - 1) * ROWS
        if not self.steps:
            return "0 steps"
        if self.count <= ROWS:
            return f"{numeral(self.count)} step{'' if self.count == 1 else 's'}"
        return f"{numeral(first + 1)} to {numeral(first + len(self.steps))} of {numeral(self.count)} steps"


def step_page(run: Run, query: StepQuery) -> StepPage:
    """Make a page of the steps of a run; steps are made for this page only."""
    steps = run.steps
    if not isinstance(steps, StepList):
        found = [step for step in steps if query.state in ("", step.state)]
        return _page(len(found), query, _counted(steps), lambda index: found[index])
    counts = state_counts(steps, StepRange(1, len(steps)))
    if not query.state:
        return _page(len(steps), query, counts, lambda index: steps[index])
    places = (place for place, code in enumerate(steps.codes.codes) if place and STATES[code] == query.state)
    numbers = sorted(map(steps.codes.order.number, places))
    return _page(len(numbers), query, counts, lambda index: steps.step(numbers[index]))


def _counted(steps: Sequence[Step]) -> Mapping[str, int]:
    states: list[str] = [step.state for step in steps]
    return {state: states.count(state) for state in sorted(set(states), key=urgency)}


def _page(count: int, query: StepQuery, counts: Mapping[str, int], step: Callable[[int], Step]) -> StepPage:
    """Make a page of so many steps; one that is behind the last is the last one."""
    pages = max(1, -(-count // ROWS))
    query = attrs.evolve(query, page=min(max(query.page, 1), pages))
    first = (query.page - 1) * ROWS
    return StepPage([step(index) for index in range(first, min(first + ROWS, count))], query, count, counts)
