"""Samples, and what is made of them: medians, and ratios within a round."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

import attrs

from .measures import COSTS, Figure, Figures, Measure


@attrs.frozen
class Spread:
    """A median, and between which values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@attrs.frozen
class Result:
    """All samples of one measure: contender -> one set of figures a round."""

    measure: Measure
    samples: defaultdict[str, list[Figures]] = attrs.field(factory=lambda: defaultdict(list))
    #: Why a peer has no figures.
    failures: dict[str, str] = attrs.field(factory=dict)
    #: Peers that do not have what is measured, and what they lack.
    left_out: dict[str, str] = attrs.field(factory=dict)

    @property
    def figures(self) -> dict[str, Figure]:
        return {**self.measure.figures, **COSTS}

    def reason(self, peer: str) -> str | None:
        """Why a contender has no figures, if so."""
        if peer in self.failures:
            return f"failed: {self.failures[peer]}"
        if peer in self.left_out:
            return f"left out: {self.left_out[peer]}"
        return None

    def absolute(self, peer: str, figure: str) -> Spread | None:
        """A peer's figure over all rounds."""
        if peer in self.failures:
            return None
        values = [sample[figure] for sample in self.samples[peer] if figure in sample]
        return Spread.of(values) if values else None

    def ratio(self, ours: str, peer: str, figure: str) -> Spread | None:
        """Ours divided by the peer's.

        Within each round first: what slows the machine for a while slows both.
        An interrupted round may lack the peer; it is left out.
        """
        if ours in self.failures or peer in self.failures:
            return None
        ratios = [
            mine[figure] / theirs[figure]
            for mine, theirs in zip(self.samples[ours], self.samples[peer], strict=False)
            if figure in mine and theirs.get(figure)
        ]
        return Spread.of(ratios) if ratios else None

    def as_json(self, peers: list[str]) -> dict[str, Any]:
        figures = {}
        for name, figure in self.figures.items():
            absolute = {peer: spread for peer in peers if (spread := self.absolute(peer, name))}
            if not absolute:
                continue
            ratios = {peer: spread for peer in peers[1:] if (spread := self.ratio(peers[0], peer, name))}
            figures[name] = {
                **attrs.asdict(figure),
                "ours_divided_by": {peer: attrs.asdict(spread) for peer, spread in ratios.items()},
                "absolute": {peer: attrs.asdict(spread) for peer, spread in absolute.items()},
                "rounds": {peer: [s[name] for s in self.samples[peer] if name in s] for peer in absolute},
            }
        return {
            "name": self.measure.name,
            "title": self.measure.title,
            "jobs": self.measure.jobs,
            "rounds": self.measure.rounds,
            "figures": figures,
            "failures": self.failures,
            "left_out": self.left_out,
        }
