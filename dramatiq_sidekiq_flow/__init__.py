"""Python actors of Dramatiq and Ruby jobs of Sidekiq, steps of the same workflow."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .broker.broker import SidekiqBroker
    from .broker.retries import Retries
    from .broker.send_many import send_many
    from .broker.sent_messages import SentMessages
    from .context import current_run, find_current_run
    from .middleware import WorkflowMiddleware
    from .process.cancellation import cancelled
    from .process.events import Buried, Recovered
    from .protocols import Barrier, CallbackStorage, Memory
    from .registry.ruby_job import RubyJob
    from .runs.query import Runs
    from .store.callback_storage import InlineCallbackStorage, RedisCallbackStorage
    from .store.memory import RedisHashMemory
    from .store.replication import Replication
    from .telemetry import JobLogging, OpenTelemetry, Prometheus
    from .typed.actor import TypedActor, actor
    from .wire.death_nodes import Catch, MayFail
    from .wire.nodes import Chain, Group, Job, Namespace, WithDelay
    from .wire.replace import Replace
    from .wire.wait_for import WaitFor
    from .workflow.resume import restart_remaining
    from .workflow.templates import Templates, template, templates
    from .workflow.ttl import extend_ttl
    from .workflow.workflow import Workflow

__version__ = "0.1.0"

__all__ = [
    "Barrier",
    "Buried",
    "CallbackStorage",
    "Catch",
    "Chain",
    "Group",
    "InlineCallbackStorage",
    "Job",
    "JobLogging",
    "MayFail",
    "Memory",
    "Namespace",
    "OpenTelemetry",
    "Prometheus",
    "Recovered",
    "RedisCallbackStorage",
    "RedisHashMemory",
    "Replace",
    "Replication",
    "Retries",
    "RubyJob",
    "Runs",
    "SentMessages",
    "SidekiqBroker",
    "Templates",
    "TypedActor",
    "WaitFor",
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

#: Module -> its public names, imported when one is first used: a process without typed actors or
#: templates loads nothing that only these need.
_MODULES = {
    "broker.broker": ("SidekiqBroker",),
    "broker.retries": ("Retries",),
    "broker.send_many": ("send_many",),
    "broker.sent_messages": ("SentMessages",),
    "context": ("current_run", "find_current_run"),
    "middleware": ("WorkflowMiddleware",),
    "process.cancellation": ("cancelled",),
    "process.events": ("Buried", "Recovered"),
    "protocols": ("Barrier", "CallbackStorage", "Memory"),
    "registry.ruby_job": ("RubyJob",),
    "runs.query": ("Runs",),
    "store.callback_storage": ("InlineCallbackStorage", "RedisCallbackStorage"),
    "store.memory": ("RedisHashMemory",),
    "store.replication": ("Replication",),
    "telemetry": ("JobLogging", "OpenTelemetry", "Prometheus"),
    "typed.actor": ("TypedActor", "actor"),
    "wire.death_nodes": ("Catch", "MayFail"),
    "wire.nodes": ("Chain", "Group", "Job", "Namespace", "WithDelay"),
    "wire.replace": ("Replace",),
    "wire.wait_for": ("WaitFor",),
    "workflow.resume": ("restart_remaining",),
    "workflow.templates": ("Templates", "template", "templates"),
    "workflow.ttl": ("extend_ttl",),
    "workflow.workflow": ("Workflow",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{module}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
