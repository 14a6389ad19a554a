"""Workflows: trees of steps that start under a run id and advance as their jobs finish."""

from .completion import Completion
from .engine import Engine, Settings
from .engine_lookup import engine_of
from .resume import restart_remaining
from .ttl import extend_ttl
from .workflow import Workflow

__all__ = ["Completion", "Engine", "Settings", "Workflow", "engine_of", "extend_ttl", "restart_remaining"]
