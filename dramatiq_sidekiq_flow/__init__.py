"""Python actors of Dramatiq and Ruby jobs of Sidekiq, steps of the same workflow."""

from .broker import SidekiqBroker
from .context import Memory, current_run
from .middleware import WorkflowMiddleware
from .store.barriers import Barrier
from .store.callback_storage import CallbackStorage, InlineCallbackStorage, RedisCallbackStorage
from .store.memory import RedisHashMemory
from .typed.ruby import RubyJob
from .wire.nodes import Chain, Group, Job, WithDelay
from .workflow import Workflow

__version__ = "0.1.0"

__all__ = [
    "Barrier",
    "CallbackStorage",
    "Chain",
    "Group",
    "InlineCallbackStorage",
    "Job",
    "Memory",
    "RedisCallbackStorage",
    "RedisHashMemory",
    "RubyJob",
    "SidekiqBroker",
    "WithDelay",
    "Workflow",
    "WorkflowMiddleware",
    "current_run",
]
