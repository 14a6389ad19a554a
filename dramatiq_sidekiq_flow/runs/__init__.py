"""Runs as they are: read, listed, waited for, explained."""

from .explanation import Explanation
from .finding import Finding
from .query import Runs
from .snapshot import Run, RunState
from .step import Progress, Step, StepState

__all__ = ["Explanation", "Finding", "Progress", "Run", "RunState", "Runs", "Step", "StepState"]
