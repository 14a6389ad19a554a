"""Runs as they are: read, listed, waited for."""

from .query import Runs
from .snapshot import Run, RunState
from .step import Progress, Step, StepState

__all__ = ["Progress", "Run", "RunState", "Runs", "Step", "StepState"]
