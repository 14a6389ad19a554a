"""The doctor: finds the runs that do not go on by themselves, and fixes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..errors import InvalidFilter, UnknownRun, shortened
from ..store import keys, run_lists
from .explanation import Explanation
from .query import Runs
from .remedies import Action, Fix, Remedies, Remedy, taken
from .run_reader import RUBY_BEAT

#: The fixes.
FIXES: tuple[Fix, ...] = ("rerun", "release", "fail", "cancel")

#: The recorded states of the runs that are examined.
EXAMINED = ("failed", "running")


class Doctor:
    """Finds the runs that do not go on by themselves, and fixes them.

    Examples:

      >>> doctor = Doctor(Runs(broker))
      >>> for explanation in doctor.examine():
      ...     print(explanation)
      ...     doctor.fix(explanation, "rerun", dry=False)
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def examine(
        self, run_ids: Sequence[str] = (), *, progress: Callable[[int, int], None] = lambda seen, total: None
    ) -> Iterator[Explanation]:
        """Yield the explanation of each run that is failed or stuck, or has steps that do not go on without a person.

        A step of plain Ruby whose job is nowhere may have begun a moment ago: runs
        with such steps are looked at again after 15 seconds, and come last.

        Parameters:
          run_ids: Runs to examine; by default all that are recorded as failed or running.
          progress: Called with the numbers of runs that were examined, and of all.

        Raises:
          UnknownRun: if one of the ids has no record.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        ids = list(dict.fromkeys(run_ids)) or self._recorded()
        uncertain: list[str] = []
        since = time.monotonic()
        for number, explanation in enumerate(self._explained(ids, bool(run_ids)), 1):
            progress(number, len(ids))
            if explanation is None:
                continue
            if _is_uncertain(explanation):
                uncertain.append(explanation.run.id)
            elif _is_ill(explanation):
                yield explanation
        if uncertain:
            # Until each Ruby process has told what it works on.
            time.sleep(max(0.0, since + RUBY_BEAT + 1.0 - time.monotonic()))
        yield from filter(_is_ill, filter(None, self._explained(uncertain, False)))

    def _recorded(self) -> list[str]:
        """The ids of all runs to examine, each once: one may just have changed its state."""
        lists = (run_lists.newest(self.runs._connection, keys.runs_in(state), None, None) for state in EXAMINED)
        return list(dict.fromkeys(position.run_id for found in lists for position in found))

    def _explained(self, ids: Iterable[str], must_exist: bool) -> Iterator[Explanation | None]:
        for run_id in ids:
            try:
                yield self.runs.explain(run_id)
            except UnknownRun:
                if must_exist:
                    raise
                # It has expired since the list was read.
                yield None

    def fix(self, explanation: Explanation, fix: Fix, *, dry: bool = True) -> list[Action]:
        """Fix a run, or tell what would be done.

        ``rerun``: its dead steps run again, as from Sidekiq's Web UI.  ``release``:
        they count as done, barriers that are gone are made anew, and the run goes on
        without them.  ``fail``: steps whose jobs are nowhere are recorded as dead.
        ``cancel``: see ``Runs.cancel``.  The run is read once more before.

        Parameters:
          dry: True only tells what would be done.

        Returns:
          What is done about each step, or why it cannot be done; empty if nothing is to be done any more.

        Raises:
          InvalidFilter: if there is no such fix.
          UnknownRun: if the run has no record.
          redis.RedisError: if Redis cannot be reached, or refuses.
        """
        if fix not in FIXES:
            raise InvalidFilter(f"A fix is one of {', '.join(FIXES)}, not {shortened(fix)}.", fix)
        run_id = explanation.run.id
        if fix == "cancel":
            causes = ", ".join(dict.fromkeys(each.cause for each in explanation.blocked)) or explanation.verdict
            remedy = Remedy(None, "the run is cancelled", lambda: self.runs.cancel(run_id, f"doctor: {causes}"))
            return [taken(fix, run_id, remedy, dry=dry)]
        view = self.runs._reader.view(run_id, thorough=True)
        remedies = Remedies(self.runs._engine, view)
        again = self.runs._explainer.blocked_steps(view)
        return [taken(fix, run_id, remedies.of(fix, step), dry=dry) for step in again]


def _is_uncertain(explanation: Explanation) -> bool:
    return any(each.cause == "unseen_in_ruby" for each in explanation.findings)


def _is_ill(explanation: Explanation) -> bool:
    return explanation.verdict in ("failed", "stuck") or bool(explanation.blocked)
