"""Page of the list of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import dramatiq

from ..runs import Run, Runs
from ..runs.id_search import IdSearch
from ..store.run_records import STATES
from .feeds import Fragments, Shown
from .rendering import Links, fragment
from .shared_reads import SharedReads

#: Runs on a page.
ROWS = 50


def _text(value: str | None) -> str | None:
    return (value or "").strip() or None


@attrs.frozen
class ListQuery:
    """What a list is asked for.

    Attributes:
      id: The beginning of the ids; the filters do not count then.
    """

    state: str | None = attrs.field(default=None, converter=_text)
    template: str | None = attrs.field(default=None, converter=_text)
    tag: str | None = attrs.field(default=None, converter=_text)
    after: str | None = attrs.field(default=None, converter=_text)
    id: str | None = attrs.field(default=None, converter=_text)

    def parameters(self, **changed: str | None) -> dict[str, str | None]:
        """The parameters of its address."""
        return attrs.asdict(attrs.evolve(self, **changed))

    @property
    def is_filtered(self) -> bool:
        """True if it asks for less than all runs."""
        return any((self.state, self.template, self.tag, self.id))


def list_query(parameters: Mapping[str, str]) -> ListQuery:
    """Read the parameters of an address."""
    return ListQuery(**{name: parameters.get(name) for name in attrs.fields_dict(ListQuery)})


class RunList:
    """Reads pages of runs, and renders them."""

    def __init__(self, broker: dramatiq.Broker, runs: Runs, reads: SharedReads) -> None:
        self.runs = runs
        self.search = IdSearch(broker)
        self.reads = reads

    async def look(self, query: ListQuery, links: Links) -> Shown:
        """Look at a page.

        Raises:
          FlowError: if it cannot be asked for, or if the run behind which it begins is gone.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        found = await self.reads.get(query, lambda: self._read(query))
        return Shown(list_fragments(found, query, links))

    async def is_id(self, text: str) -> bool:
        """Return True if there is a run of exactly this id."""
        return await self.reads.get(("has", text), lambda: self.search.has(text))

    def _read(self, query: ListQuery) -> Sequence[Run]:
        if query.id:
            return self.search.beginning_with(query.id, ROWS)
        return self.runs.list(
            state=query.state, template=query.template, tag=query.tag, after=query.after, limit=ROWS + 1
        )


def list_fragments(found: Sequence[Run], query: ListQuery, links: Links) -> Fragments:
    """Render a page of runs, of which one more was read."""
    shown = found[:ROWS]
    older = links.home(**query.parameters(after=shown[-1].id)) if len(found) > ROWS else None
    newest = links.home(**query.parameters(after=None)) if query.after else None
    return {"runs": fragment("list_rows.html", runs=shown, query=query, links=links, older=older, newest=newest)}


def list_values(query: ListQuery, links: Links) -> dict[str, Any]:
    """What the page around the rows needs."""
    # A search looks at all ids, which is too much for each second.
    events = "" if query.id else links.list_events(**query.parameters())
    return {"query": query, "states": STATES, "events": events}
