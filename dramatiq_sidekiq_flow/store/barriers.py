"""Barriers: where the children of a group, and the step before the next, are counted.

The one that is shipped has no class: it lives inside the script that advances
a run (``lua/advance.lua``), which is what makes counting, keeping the output
and pushing what follows a single step.  :class:`Barrier` is what another one
must do.
"""

from __future__ import annotations

from typing import Protocol


class Barrier(Protocol):
    """Counts on behalf of workflows, elsewhere than in Redis or by other rules.

    Given to ``WorkflowMiddleware(barriers=...)``.  Counting is then not one step
    with the push of what follows: a job is counted first, and leaves flight and
    pushes second.  A crash in between runs the job again, so each method must
    bear being called again.  Whatever is raised fails the job, which is retried.
    """

    def create(self, barrier_id: str, parties: int, ttl: int) -> None:
        """Make a barrier that waits for so many units.

        Called before anything exists that could count it.  Where it exists,
        counted or not, nothing changes.

        Parameters:
          barrier_id: A UUID.
          ttl: Milliseconds that it must live at least.
        """

    def wait(self, barrier_id: str, unit: str) -> bool:
        """Count a unit, once; whether it is the one that released the barrier.

        The same unit again counts nothing and is answered the same again, so
        that a crash after the answer repeats what follows and does not lose it.
        True for one unit of a barrier at most.

        Parameters:
          unit: A job's jid, or for a finished inner group its barrier's id.

        Raises:
          BarrierExpired: for a barrier that is not there.
        """

    def extend(self, barrier_id: str, ttl: int) -> None:
        """Let a barrier live for so many milliseconds from now, or longer.  Nothing where it is gone."""
