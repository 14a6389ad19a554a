"""The limits of ``--quick``: what does not depend on the machine.  ``TABLE`` is the only place to lower one.

Each limit is for this package alone, a job, a step or a member of a group.  It
is compared with the best round, since a busy machine only adds to the costs.
"""

from __future__ import annotations

import attrs

from .document import Document

OURS = "sidekiq-flow"


@attrs.frozen
class Limit:
    """What a cost of a measure may be at most, at the sizes of the quick run."""

    measure: str
    figure: str
    limit: float

    def value(self, document: Document) -> float | None:
        """The best round; None if it was not measured."""
        return min(document.rounds(self.measure, self.figure, OURS), default=None)

    def exceeded(self, document: Document) -> bool:
        value = self.value(document)
        return value is not None and value > self.limit


#: measure: network reads, commands, bytes in and bytes out.  The costs of throughput-1
#: and the reads of members-1 depend on how many jobs a batch gets, and bytes in hold
#: the host name several times: these have more room.
TABLE = {
    "throughput-1": (0.3, 2.2, 60, 200),
    "send": (1.1, 5.1, 345, 5),
    "chain-10": (1.7, 17, 1_580, 200),
    "chain-100": (1.4, 14, 1_300, 240),
    "group-1000": (0.02, 0.02, 345, 1),
    "members-1": (0.4, 6, 200, 380),
}

LIMITS = tuple(
    Limit(measure, figure, limit)
    for measure, row in TABLE.items()
    for figure, limit in zip(("reads", "commands", "bytes_in", "bytes_out"), row)
)


def exceeded(document: Document) -> list[Limit]:
    """The limits that a run has exceeded."""
    return [limit for limit in LIMITS if limit.exceeded(document)]


def table(document: Document) -> str:
    """Each limit that was measured, with its value."""
    lines = ["LIMITS (costs of this package; the best round)", ""]
    for limit in LIMITS:
        value = limit.value(document)
        if value is not None:
            verdict = "EXCEEDED" if limit.exceeded(document) else "ok"
            lines.append(f"{limit.measure:<16}{limit.figure:<12}{value:>12,.4g}   <= {limit.limit:<10,.5g}{verdict}")
    return "\n".join(lines)
