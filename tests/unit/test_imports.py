"""What an import loads: each public name when it is first used, and no module that a worker does not need."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dramatiq_sidekiq_flow as package

#: Not needed to send jobs and to run them: typed actors, templates, other brokers, tools, rare arguments.
NOT_NEEDED = (
    "cattrs",
    "click",
    "difflib",
    "dramatiq_sidekiq_flow.cli",
    "dramatiq_sidekiq_flow.embedded",
    "dramatiq_sidekiq_flow.foreign",
    "dramatiq_sidekiq_flow.telemetry",
    "dramatiq_sidekiq_flow.testing",
    "dramatiq_sidekiq_flow.typed",
    "dramatiq_sidekiq_flow.web",
    "dramatiq_sidekiq_flow.wire.active_job",
    "dramatiq_sidekiq_flow.workflow.resume",
    "dramatiq_sidekiq_flow.workflow.templates",
    "dramatiq_sidekiq_flow.workflow.workflow",
    "jinja2",
    "resource",
    "rich",
    "sqlite3",
    "starlette",
    "uvicorn",
    "yaml",
    "zoneinfo",
)

PROGRAM = """
import dramatiq
from dramatiq.brokers.redis import RedisBroker
import json, sys
RedisBroker()
before = set(sys.modules)
{imports}
print(json.dumps(sorted(set(sys.modules) - before)))
"""

BROKER = """
from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware
broker = SidekiqBroker(url="redis://localhost:1/0")
broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
dramatiq.actor(broker=broker)(print)
"""


def loaded(imports: str) -> set[str]:
    """The modules that a new process loads for some lines, apart from those that a RedisBroker loads."""
    program = PROGRAM.format(imports=imports)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return set(json.loads(done.stdout))


def test_a_broker_with_workflows_loads_no_more_than_a_worker_needs() -> None:
    modules = loaded(BROKER)
    assert "dramatiq_sidekiq_flow.workflow.engine" in modules
    assert not modules.intersection(NOT_NEEDED)


def test_the_package_itself_loads_nothing() -> None:
    assert loaded("import dramatiq_sidekiq_flow") <= {"dramatiq_sidekiq_flow", "importlib"}


def test_a_star_import_has_all_names() -> None:
    loaded(
        "from dramatiq_sidekiq_flow import *\n"
        "import dramatiq_sidekiq_flow as package\n"
        "assert set(package.__all__) <= set(dir())"
    )


def test_type_checkers_see_the_module_that_each_name_comes_from() -> None:
    tree = ast.parse(Path(package.__file__).read_text("utf-8"))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert seen == package._MODULE_OF
    assert sorted(seen) == sorted(package.__all__)


def test_dir_lists_all_names() -> None:
    assert set(dir(package)) >= {*package.__all__, "__version__", "__doc__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from dramatiq_sidekiq_flow import nothing")  # noqa: S102
