"""Runs as they are: read, listed, waited for, explained, and fixed."""

from .doctor import Doctor
from .explanation import Explanation
from .finding import Finding
from .query import Runs
from .remedies import Action
from .snapshot import Run, RunState
from .step import Progress, Step, StepState

__all__ = ["Action", "Doctor", "Explanation", "Finding", "Progress", "Run", "RunState", "Runs", "Step", "StepState"]
