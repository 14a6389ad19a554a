"""Completion in, payloads out: what makes jobs a workflow."""

from .completion import Completion
from .resume import restart_remaining
from .ttl import extend_ttl
from .workflow import Workflow, completion_of

__all__ = ["Completion", "Workflow", "completion_of", "extend_ttl", "restart_remaining"]
