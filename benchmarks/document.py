"""The JSON object of a run, as goals, limits and plots read it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Document:
    """What a run has measured, by measure, figure and contender."""

    data: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read the file that a run has written."""
        return cls(json.loads(path.read_text()))

    def rounds(self, measure: str, figure: str, peer: str) -> list[float]:
        """A contender's figure in each round; empty if it was not measured."""
        for entry in self.data["measures"]:
            if entry["name"] == measure:
                found: list[float] = entry["figures"].get(figure, {}).get("rounds", {}).get(peer, [])
                return found
        return []

    def value(self, measure: str, figure: str, peer: str) -> float | None:
        """The median of the rounds."""
        found = self.rounds(measure, figure, peer)
        return statistics.median(found) if found else None

    def ratio(self, measure: str, figure: str, ours: str, theirs: str) -> float | None:
        """One contender's figure divided by another's: within each round, then the median."""
        pairs = zip(self.rounds(measure, figure, ours), self.rounds(measure, figure, theirs), strict=False)
        ratios = [mine / other for mine, other in pairs if other]
        return statistics.median(ratios) if ratios else None

    def has(self, peer: str) -> bool:
        """Whether a contender took part."""
        return peer in self.data["peers"]

    def title(self, peer: str) -> str:
        """A contender's name for readers."""
        return str(self.data["peers"].get(peer, peer))

    def measured(self, kind: str) -> list[str]:
        """The names of all measures of a kind."""
        return [entry["name"] for entry in self.data["measures"] if entry["name"].partition("-")[0] == kind]
