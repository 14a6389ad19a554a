"""Templates: what is refused, and where, before anything is enqueued."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from dramatiq_sidekiq_flow import (
    Chain,
    Job,
    SidekiqBroker,
    Templates,
    Workflow,
    WorkflowMiddleware,
    template,
    templates,
)
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidInput, InvalidTemplate, UnknownTemplate


@attrs.frozen
class Params:
    doc_id: str
    model: str = "small"
    tries: int = 3


@pytest.fixture
def broker() -> SidekiqBroker:
    """Nobody is connected to: nothing here is enqueued."""
    broker = SidekiqBroker(url="redis://127.0.0.1:1/0")
    broker.add_middleware(WorkflowMiddleware())
    return broker


@pytest.fixture
def registry() -> Templates:
    return Templates()


def echo(params: Params) -> Job:
    return Job("Echo", attrs.asdict(params))


def args(workflow: Workflow) -> Any:
    return workflow.wire["args"][0]


# -- params ----------------------------------------------------------------------


def test_params_may_be_a_mapping_or_an_instance(registry: Templates, broker: SidekiqBroker) -> None:
    registry.register("echo", echo)
    for given in ({"doc_id": "1"}, Params("1")):
        workflow = registry.build("echo", given, broker=broker)
        assert args(workflow) == workflow.seed == {"doc_id": "1", "model": "small", "tries": 3}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "doc_id"),
        (None, "doc_id"),
        ({"doc_id": 1}, "params.doc_id"),
        ({"doc_id": "1", "tries": "3"}, "params.tries"),
        ({"doc_id": "1", "tries": True}, "params.tries"),
        ({"doc_id": "1", "other": 1}, "other"),
        ({"doc_id": "1", "tries": float("nan")}, "params.tries"),
        (Params(1), "params.doc_id"),  # type: ignore[arg-type]
        ("1", "expected a Params or a mapping, not a str"),
        ([("doc_id", "1")], "not a list"),
    ],
)
def test_params_that_do_not_fit_are_named(registry: Templates, broker: SidekiqBroker, given: Any, named: str) -> None:
    built: list[Any] = []
    registry.register("echo", lambda params: built.append(params), Params)
    with pytest.raises(InvalidInput, match="params") as raised:
        registry.build("echo", given, broker=broker)
    assert named in str(raised.value)
    assert not built


def test_without_a_class_params_are_any_mapping(registry: Templates, broker: SidekiqBroker) -> None:
    def of_mapping(params: Mapping[str, Any]) -> Job:
        return Job("Echo", dict(params))

    registry.register("mapping", of_mapping)
    registry.register("bare", lambda params: Job("Echo", params), defaults={"model": "small"})
    registry.register("none", lambda: Job("Echo"))
    assert args(registry.build("mapping", {"a": [1]}, broker=broker)) == {"a": [1]}
    assert args(registry.build("bare", {"a": 1}, broker=broker)) == {"a": 1, "model": "small"}
    assert registry.build("none", {"a": 1}, broker=broker).seed == {"a": 1}
    for given, named in (({"a": object()}, r"params\.a"), ({1: 2}, "1"), (Params("1"), "a mapping, not a Params")):
        with pytest.raises(InvalidInput, match=named):
            registry.build("bare", given, broker=broker)


def test_the_builder_cannot_change_what_others_get(registry: Templates, broker: SidekiqBroker) -> None:
    def spoils(params: dict[str, Any]) -> Job:
        params["a"] = "spoilt"
        return Job("A")

    registry.register("spoils", spoils, defaults={"a": 1})
    for _ in range(2):
        assert registry.build("spoils", broker=broker).seed == {"a": 1}


# -- defaults ----------------------------------------------------------------------


def test_a_param_beats_the_file_and_the_file_beats_the_class(
    registry: Templates, broker: SidekiqBroker, tmp_path: Path
) -> None:
    file = tmp_path / "echo.yml"
    file.write_text("model: large\ntries: 5\n")
    registry.register("echo", echo, defaults=file)
    assert args(registry.build("echo", {"doc_id": "1", "tries": 7}, broker=broker)) == {
        "doc_id": "1",
        "model": "large",
        "tries": 7,
    }
    # An instance is complete as it is.
    assert args(registry.build("echo", Params("1"), broker=broker))["model"] == "small"
    with pytest.raises(InvalidInput, match="doc_id"):
        registry.build("echo", broker=broker)


def test_one_file_may_hold_the_defaults_of_many(registry: Templates, broker: SidekiqBroker, tmp_path: Path) -> None:
    registry.register("echo", echo, defaults={"model": "large", "tries": 1})
    registry.register("other", lambda params: Job("Echo", params))
    registry.register("untouched", lambda params: Job("A"))
    file = tmp_path / "all.yml"
    file.write_text("echo: {tries: 5}\nother: {since: 2024-01-02, at: 2024-01-02 03:04:05}\n")
    registry.load_defaults(file)
    assert args(registry.build("echo", {"doc_id": "1"}, broker=broker)) == {"doc_id": "1", "model": "large", "tries": 5}
    assert args(registry.build("other", broker=broker)) == {
        "since": date(2024, 1, 2).isoformat(),
        "at": "2024-01-02T03:04:05",
    }
    assert registry.names() == ["echo", "other", "untouched"]


@pytest.mark.parametrize(
    ("text", "error", "named"),
    [
        ("other: {}", UnknownTemplate, "'other'"),
        ("echo: {tries: 4}\nother: {}", UnknownTemplate, "'other'"),
        ("echo: {modell: x}", InvalidInput, "modell"),
        ("echo: {tries: many}", InvalidInput, "echo.tries"),
        ("echo: 1", InvalidInput, "echo: expected a mapping"),
        ("- echo", ConfigurationError, "must be a mapping"),
        ("", ConfigurationError, "must be a mapping"),
        ("echo: {", ConfigurationError, "not valid YAML"),
        ("echo: {on: 1}", ConfigurationError, "quotes"),
        ("echo: {tries: .nan}", ConfigurationError, "echo.tries"),
        ("echo: {model: !!binary aGk=}", ConfigurationError, "bytes"),
        ("echo: !!python/object/apply:os.getcwd []", ConfigurationError, "not valid YAML"),
        ("echo: &a {model: *a}", ConfigurationError, "themselves"),
        ('echo: "\x01"', ConfigurationError, "not valid YAML"),
        ("echo: {since: 2024-99-99}", ConfigurationError, "not valid YAML"),
    ],
)
def test_bad_defaults_are_named_and_nothing_of_the_file_counts(
    registry: Templates, broker: SidekiqBroker, tmp_path: Path, text: str, error: type[Exception], named: str
) -> None:
    registry.register("echo", echo)
    file = tmp_path / "bad.yml"
    file.write_text(text)
    with pytest.raises(error) as raised:
        registry.load_defaults(file)
    assert named in str(raised.value)
    assert args(registry.build("echo", {"doc_id": "1"}, broker=broker))["tries"] == 3


def test_with_bad_defaults_a_template_is_not_registered(registry: Templates, tmp_path: Path) -> None:
    file = tmp_path / "bad.yml"
    file.write_text("modell: x")
    for bad, error in ((file, InvalidInput), (tmp_path / "no.yml", ConfigurationError), ({"tries": "x"}, InvalidInput)):
        with pytest.raises(error):
            registry.register("echo", echo, defaults=bad)
    with pytest.raises(InvalidInput, match=r"defaults\.a"):
        registry.register("echo", lambda params: Job("A"), defaults={"a": object()})
    assert registry.names() == []


def module(path: Path, code: str) -> ModuleType:
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_a_file_is_found_from_the_builders_module(broker: SidekiqBroker, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "echo.yml").write_text("model: large")
    code = (
        "from dramatiq_sidekiq_flow import Job, Templates\n"
        "registry = Templates()\n"
        "@registry.template('echo', defaults='config/echo.yml')\n"
        "def echo(params): return Job('Echo', params)\n"
    )
    loaded = module(tmp_path / "templates_of_an_app.py", code)
    assert args(loaded.registry.build("echo", broker=broker)) == {"model": "large"}


def test_without_pyyaml_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "echo.yml").write_text("model: large")
    code = (
        "import sys\n"
        "sys.modules['yaml'] = None\n"
        "from dramatiq_sidekiq_flow import templates\n"
        f"templates.register('echo', lambda params: None, defaults={str(tmp_path / 'echo.yml')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'dramatiq-sidekiq-flow[yaml]'" in done.stderr


# -- the registry ------------------------------------------------------------------


def test_names_are_found_and_forgotten(registry: Templates) -> None:
    @registry.template("one")
    def one(params: Params) -> Job:
        return Job("A")

    registered = registry.register("another", echo)
    assert one(Params("1")) == Job("A")  # the function stays what it is
    assert registry.names() == ["another", "one"]
    assert registry.fetch("another") is registered
    assert (registered.name, registered.builder) == ("another", echo)
    registry.clear()
    assert registry.names() == []


def test_an_unknown_name_says_which_there_are(registry: Templates, broker: SidekiqBroker) -> None:
    with pytest.raises(UnknownTemplate, match="registered are: none"):
        registry.run("echo", broker=broker)
    registry.register("b", echo)
    registry.register("a", echo)
    with pytest.raises(UnknownTemplate, match="'echo' is not registered; registered are: a, b") as raised:
        registry.build("echo", broker=broker)
    assert raised.value.value == "echo"


def test_a_name_is_taken_once(registry: Templates) -> None:
    registry.register("echo", echo)
    with pytest.raises(InvalidTemplate, match=r"'echo' is registered already, by .*test_templates\.echo"):
        registry.register("echo", lambda: None)
    assert registry.fetch("echo").builder is echo


def test_the_registry_of_the_process() -> None:
    name = "of the process"
    try:
        template(name)(echo)
        assert name in templates.names()
    finally:
        templates.clear()
    assert name not in templates.names()


def two(a: Any, b: Any) -> None: ...
def named(*, params: Any) -> None: ...
def odd(params: int) -> None: ...
def lost(params: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def list_of(params: list[Params]) -> None: ...


@pytest.mark.parametrize(
    ("builder", "why"),
    [
        (None, "function"),
        (two, "takes a, b"),
        (named, "takes params"),
        (odd, "must be an attrs class or a mapping"),
        (list_of, "must be an attrs class or a mapping"),
        (lost, "input=THE_CLASS"),
    ],
)
def test_what_is_no_builder_is_refused(registry: Templates, builder: Any, why: str) -> None:
    with pytest.raises(InvalidTemplate, match=why):
        registry.register("bad", builder)
    assert registry.names() == []


@pytest.mark.parametrize("name", ["", None, echo])
def test_a_template_has_a_name(registry: Templates, name: Any) -> None:
    with pytest.raises(InvalidTemplate, match="name"):
        registry.register(name, echo)
    if name != "":
        with pytest.raises(InvalidTemplate, match="name"):
            registry.template(name)


def test_the_class_may_be_given(registry: Templates, broker: SidekiqBroker) -> None:
    registry.register("lost", lambda params: Job("Echo", params.model), Params)
    assert args(registry.build("lost", {"doc_id": "1"}, broker=broker)) == "small"

    @registry.template("also", input=Params)
    def also(params: Any = None, *more: Any, **others: Any) -> Job:
        return Job("Echo", params.model)

    assert args(registry.build("also", {"doc_id": "1"}, broker=broker)) == "small"


def test_a_builder_may_be_any_callable(registry: Templates, broker: SidekiqBroker) -> None:
    class Builder:
        def __call__(self, params: Params) -> Chain:
            return Chain(Job("Echo", params.doc_id))

    def of_two(prefix: str, params: Params) -> Chain:
        return Chain(Job("Echo", prefix + params.doc_id))

    registry.register("object", Builder())
    registry.register("method", Builder().__call__)
    registry.register("partial", partial(of_two, ""))
    for name in registry.names():
        assert registry.build(name, {"doc_id": "1"}, broker=broker).wire["children"][0]["args"] == ["1"]
        assert registry.fetch(name).schema is not None


# -- builders --------------------------------------------------------------------------


async def not_now(params: Any) -> Any:
    return Job("A")


@pytest.mark.parametrize(
    ("builder", "why"),
    [
        (lambda params: None, "returned no workflow. None is not a step"),
        (lambda params: "Job", "returned no workflow. 'Job' is not a step"),
        (lambda params: Chain(Job("A"), [Job("B")]), "returned no workflow"),
        (lambda params: dict[str, Any]()["missing"], "raised KeyError: 'missing'"),
        (lambda params: Job(7), "'junk'"),  # type: ignore[arg-type]
        (not_now, "async"),
    ],
)
def test_a_builder_that_gives_no_workflow_is_named(
    registry: Templates, broker: SidekiqBroker, builder: Any, why: str
) -> None:
    registry.register("junk", builder)
    with pytest.raises(InvalidTemplate) as raised:
        registry.build("junk", broker=broker)
    assert "'junk'" in str(raised.value)
    assert why in str(raised.value)


def test_a_builder_may_give_a_workflow(registry: Templates, broker: SidekiqBroker) -> None:
    registry.register("whole", lambda params: Workflow(Job("Echo", params), broker))
    workflow = registry.build("whole", {"a": 1}, broker=broker)
    assert args(workflow) == workflow.seed == {"a": 1}
