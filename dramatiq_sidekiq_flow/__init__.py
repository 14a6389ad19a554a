"""Python actors of Dramatiq and Ruby jobs of Sidekiq, steps of the same workflow."""

from .broker import SidekiqBroker, cancelled
from .context import current_run
from .middleware import WorkflowMiddleware
from .store.memory import RedisHashMemory
from .typed.ruby import RubyJob
from .wire.nodes import Chain, Group, Job, WithDelay
from .workflow import Workflow

__version__ = "0.1.0"

__all__ = [
    "Chain",
    "Group",
    "Job",
    "RedisHashMemory",
    "RubyJob",
    "SidekiqBroker",
    "WithDelay",
    "Workflow",
    "WorkflowMiddleware",
    "cancelled",
    "current_run",
]
