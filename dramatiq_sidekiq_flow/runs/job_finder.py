"""Search for the jobs of one run, until all steps whose jobs should exist were seen."""

from __future__ import annotations

from collections.abc import Sequence

from ..store import job_search
from ..store.connection import Connection
from ..store.job_search import FoundJob
from ..store.run_records import Record
from ..wire.tree_nodes import TreeNode
from .sightings import Sightings
from .step_marks import number_missing


class JobFinder:
    """Finds the jobs of a run.

    Parameters:
      thorough: True searches for the jobs of steps that are recorded as dead, too, and searches
        large places once: jobs that moved meanwhile are looked for where they can have gone.
    """

    def __init__(self, connection: Connection, *, thorough: bool = False) -> None:
        self.connection = connection
        self.thorough = thorough
        self._before: Sightings | None = None

    def find(self, record: Record, tree: TreeNode | None) -> Sightings:
        """Search all places; if ``thorough``, each second time only those to which a job can have moved."""
        run_id = record.head.id
        before = self._before
        if before is not None:
            self._before = None
            before.add_work(job_search.work(self.connection))
            before.add_found(job_search.glance(self.connection, run_id, job_search.places(self.connection)))
            return before
        sightings = self._search(run_id, record, tree)
        if self.thorough:
            self._before = sightings
        return sightings

    def _search(self, run_id: str, record: Record, tree: TreeNode | None) -> Sightings:
        sightings = Sightings(run_id)
        taken = wanted = 0

        def enough(found: Sequence[FoundJob]) -> bool:
            nonlocal taken, wanted
            if tree is None or len(found) < wanted:
                return False
            sightings.add_found(found[taken:])
            taken = len(found)
            missing = number_missing(record, tree, sightings)
            if self.thorough:
                missing += len(record.failed.keys() - sightings.numbers() - record.times.keys())
            # Ask again when as many were found: a job may show that other steps are done, but rarely does.
            wanted = taken + missing
            return not missing

        sightings.add_work(job_search.work(self.connection))
        # Parked jobs first: they go from there to the other places.
        places = [job_search.parked_place(run_id), *job_search.places(self.connection)]
        found = job_search.search(self.connection, run_id, places, enough)
        if fanouts := job_search.parked_fanouts(found):
            found += job_search.search(self.connection, run_id, fanouts)
        sightings.add_found(found[taken:])
        return sightings
