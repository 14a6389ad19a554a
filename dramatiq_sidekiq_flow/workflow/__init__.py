"""Completion in, payloads out: what makes jobs a workflow."""

from .completion import Completion
from .workflow import Workflow

__all__ = ["Completion", "Workflow"]
