"""Python actors of Dramatiq and Ruby jobs of Sidekiq, steps of the same workflow."""

from typing import TYPE_CHECKING, Any

from .broker import Retries, SentMessages, SidekiqBroker, cancelled, send_many
from .context import current_run, find_current_run
from .middleware import WorkflowMiddleware
from .process.events import Buried, Recovered
from .protocols import Barrier, CallbackStorage, Memory
from .registry.ruby_job import RubyJob
from .store.callback_storage import InlineCallbackStorage, RedisCallbackStorage
from .store.memory import RedisHashMemory
from .store.replication import Replication
from .typed.actor import TypedActor, actor
from .wire.nodes import Chain, Group, Job, Namespace, WithDelay
from .workflow import Workflow, extend_ttl, restart_remaining
from .workflow.templates import Templates, template, templates

if TYPE_CHECKING:
    from .telemetry import JobLogging, OpenTelemetry, Prometheus

__version__ = "0.1.0"

__all__ = [
    "Barrier",
    "Buried",
    "CallbackStorage",
    "Chain",
    "Group",
    "InlineCallbackStorage",
    "Job",
    "JobLogging",
    "Memory",
    "Namespace",
    "OpenTelemetry",
    "Prometheus",
    "Recovered",
    "RedisCallbackStorage",
    "RedisHashMemory",
    "Replication",
    "Retries",
    "RubyJob",
    "SentMessages",
    "SidekiqBroker",
    "Templates",
    "TypedActor",
    "WithDelay",
    "Workflow",
    "WorkflowMiddleware",
    "actor",
    "cancelled",
    "current_run",
    "extend_ttl",
    "find_current_run",
    "restart_remaining",
    "send_many",
    "template",
    "templates",
]


def __getattr__(name: str) -> Any:
    # Telemetry is imported by those who use it.
    if name in ("JobLogging", "OpenTelemetry", "Prometheus"):
        from . import telemetry

        return getattr(telemetry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
