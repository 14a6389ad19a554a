"""Page of one run: its parts, each of which is sent anew when it changes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import attrs

from ..runs import Run, Runs
from ..runs.explanation import Explanation
from ..runs.step_list import StepList
from .feeds import Fragments, Shown
from .rendering import Links, fragment
from .run_actions import actions_for
from .shared_reads import SharedReads
from .step_page import StepPage, StepQuery, page_of, step_page
from .timeline import timeline
from .tree_picture import draw

#: Dead steps, and values of the memory, that are shown.
FAILURES, VALUES = 10, 50


@attrs.frozen
class RunLook:
    """A run as a page shows it."""

    run: Run
    page: StepPage
    links: Links
    read_only: bool
    explanation: Explanation | None = None

    def step_link(self, number: int) -> str:
        """Where the row of a step is."""
        page = page_of(number)
        return f"{self.links.run(self.run.id, page=str(page) if page > 1 else None)}#step-{number}"


@attrs.frozen
class Section:
    """A part of the page, with a template of its own.

    Attributes:
      name: Of the part, and of its template ``part_NAME.html``.
      view: Makes what the template needs as ``view``; nothing is shown if it returns None.
    """

    name: str
    view: Callable[[RunLook], object]


def _actions(look: RunLook) -> object:
    return None if look.read_only else actions_for(look.run) or None


def _failures(look: RunLook) -> object:
    return [*islice(look.run.failures, FAILURES)] or None


def _graph(look: RunLook) -> object:
    steps = look.run.steps
    picture = draw(steps, look.step_link) if isinstance(steps, StepList) else None
    return picture if picture and picture.boxes else None


def _memory(look: RunLook) -> object:
    return [*islice(sorted(look.run.memory.items()), VALUES)] or None


def _explanation(look: RunLook) -> object:
    return None if look.explanation is None else look.explanation.blocked or None


#: In the order of the page.
SECTIONS = (
    Section("state", lambda look: look.run),
    Section("head", lambda look: look.run),
    Section("actions", _actions),
    Section("failures", _failures),
    Section("explanation", _explanation),
    Section("graph", _graph),
    Section("timeline", lambda look: timeline(look.page.steps)),
    Section("memory", _memory),
    Section("steps", lambda look: look.page),
)


class RunPage:
    """Reads runs, and renders them."""

    def __init__(self, runs: Runs, reads: SharedReads, read_only: bool) -> None:
        self.runs = runs
        self.reads = reads
        self.read_only = read_only

    async def look(self, run_id: str, query: StepQuery, links: Links) -> Shown:
        """Look at a run.

        Raises:
          UnknownRun: if it has no record.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        run = await self.reads.get(run_key(run_id), lambda: self.runs.get(run_id))
        explanation = await self._explanation(run)
        look = RunLook(run, step_page(run, query), links, self.read_only, explanation)
        return Shown(run_fragments(look), run.at_rest)

    async def _explanation(self, run: Run) -> Explanation | None:
        """Explain a run that does not go on by itself."""
        if run.state not in UNMOVED:
            return None
        return await self.reads.get(("explanation", run.id), lambda: self.runs.explain(run.id))


#: States of runs that do not go on by themselves: their pages say why.
UNMOVED = ("failed", "stuck")


def run_key(run_id: str) -> tuple[str, str]:
    """The key of a run among the reads that are shared."""
    return ("run", run_id)


def run_fragments(look: RunLook) -> Fragments:
    """Render the parts of the page."""
    views = ((section, section.view(look)) for section in SECTIONS)
    return {
        section.name: fragment(f"part_{section.name}.html", view=view, look=look, run=look.run, links=look.links)
        for section, view in views
    }
