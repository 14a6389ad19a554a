"""Completion in, payloads out: what makes jobs a workflow."""

from .completion import Completion
from .ttl import extend_ttl
from .workflow import Workflow

__all__ = ["Completion", "Workflow", "extend_ttl"]
