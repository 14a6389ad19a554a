"""Python actors of Dramatiq and Ruby jobs of Sidekiq, steps of the same workflow."""

from .broker import SidekiqBroker
from .context import current_run
from .middleware import WorkflowMiddleware
from .store.memory import RedisHashMemory
from .typed.actor import TypedActor, actor
from .typed.ruby import RubyJob
from .wire.nodes import Chain, Group, Job, Namespace, WithDelay
from .workflow import Workflow, extend_ttl
from .workflow.templates import Templates, template, templates

__version__ = "0.1.0"

__all__ = [
    "Chain",
    "Group",
    "Job",
    "Namespace",
    "RedisHashMemory",
    "RubyJob",
    "SidekiqBroker",
    "Templates",
    "TypedActor",
    "WithDelay",
    "Workflow",
    "WorkflowMiddleware",
    "actor",
    "current_run",
    "extend_ttl",
    "template",
    "templates",
]
