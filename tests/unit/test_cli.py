"""Stubs for Ruby, helpers for Python, and the registry as a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import RubyJob
from dramatiq_sidekiq_flow.cli.main import main
from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.registry.registry import Entry
from dramatiq_sidekiq_flow.registry.stubs import python, ruby

APP = """
import dramatiq
from dramatiq_sidekiq_flow import SidekiqBroker
broker = SidekiqBroker(url="redis://127.0.0.1:1/0")
@dramatiq.actor(actor_name="Docs::Extract", queue_name="python", max_retries=5, tags=["etl"], broker=broker)
def extract(doc_id): ...
@dramatiq.actor(queue_name="python", broker=broker)
def no_ruby_name(): ...
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stub_app.py").write_text(APP, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "stub_app", raising=False)
    return tmp_path


def test_stubs_are_written_for_actors_that_ruby_can_name(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stubs", "stub_app:broker"]) == 0
    text = capsys.readouterr().out
    assert text.endswith(
        """\
module Docs
  class Extract
    include Sidekiq::Job
    sidekiq_options queue: "python", retry: 5, tags: ["etl"]
    RUNS_IN_PYTHON = true

    def perform(*)
      raise NotImplementedError, "Docs::Extract runs in Python: no Ruby worker may consume its queue"
    end
  end
end
"""
    )
    assert "no_ruby_name" not in text


def test_the_registry_becomes_helpers(app: Path) -> None:
    (app / "ruby.json").write_text(
        json.dumps({"ruby": {"Images::Thumbnail": {"retry": 3, "queue": "critical"}, "Load": {"queue": "low"}}}),
        "utf-8",
    )
    assert main(["stubs", "--from-manifest", "ruby.json", "--output", "ruby_jobs.py"]) == 0
    written = (app / "ruby_jobs.py").read_text("utf-8")
    names: dict[str, object] = {}
    exec(written, names)  # noqa: S102 - what was written is Python
    thumbnail = names["Images_Thumbnail"]
    assert thumbnail(7).options == {"queue": "critical", "retry": 3}  # type: ignore[operator]
    assert names["Load"].job_class == "Load"  # type: ignore[attr-defined]


def test_the_registry_of_actors_is_a_file(app: Path) -> None:
    assert main(["registry", "stub_app:broker", "--output", "python.json"]) == 0
    actors = json.loads((app / "python.json").read_text("utf-8"))["python"]
    assert actors["Docs::Extract"] == {"queue": "python", "retry": 5, "tags": ["etl"]}
    assert actors["no_ruby_name"] == {"queue": "python", "retry": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stubs", "stub_app:nothing"], "has no 'nothing'"),
        (["stubs", "no_such_module:broker"], "no_such_module"),
        (["stubs", "stub_app:dramatiq.__version__"], "not a SidekiqBroker"),
        (["stubs", "--from-manifest", "none.json"], "none.json"),
        (["stubs", "stub_app:broker", "--output", "no/such/folder.rb"], "no/such/folder.rb"),
        (["stubs", "app_that_raises"], "RuntimeError: no setting"),
        (["bridge", "stub_app:broker"], "needs no bridge"),
    ],
)
def test_an_error_is_one_line(
    app: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (app / "app_that_raises.py").write_text("raise RuntimeError('no\\nsetting')", "utf-8")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_ruby_text_is_no_ruby_code() -> None:
    text = ruby({"A": Entry("A", {"queue": 'q"#{exit}', "retry": None})})
    assert 'queue: "q\\"\\#{exit}", retry: nil' in text


def test_names_that_python_does_not_have_are_bent() -> None:
    assert "class_ = RubyJob('class')" in python({"class": Entry("class", {})})


def test_names_that_are_taken_are_bent() -> None:
    classes = ["A::B", "A_B", "RubyJob", "A"]
    text = python({name: Entry(name, {"lambda": 1, "by-id": 'x"""'}) for name in classes})
    names: dict[str, Any] = {}
    exec(text, names)  # noqa: S102 - what was written is Python
    found = {value.job_class: value.options for value in names.values() if isinstance(value, RubyJob)}
    assert found == {name: {"lambda": 1, "by-id": 'x"""'} for name in classes}


def test_helpers_say_where_the_jobs_go() -> None:
    text = python({"SaidA": Entry("SaidA", {"queue": 'q"""\\', "retry": 0}), "SaidB": Entry("SaidB", {"retry": False})})
    exec(text, {})  # noqa: S102 - what was written is Python
    assert '\n"""In the queue default, never retried."""\n' in text
    assert "retried 0 times." in text


def test_an_actor_may_be_the_namespace_of_another() -> None:
    text = ruby({name: Entry(name, {"queue": "q"}) for name in ("Docs::Pdf::Extract", "Docs")})
    assert [line for line in text.splitlines() if line.lstrip().startswith(("class ", "module "))] == [
        "class Docs",
        "class Docs",
        "  module Pdf",
        "    class Extract",
    ]


def test_nothing_to_write_is_an_error() -> None:
    with pytest.raises(ConfigurationError):
        ruby({"no_ruby_name": Entry("no_ruby_name", {})})
    with pytest.raises(ConfigurationError):
        python({})


def test_without_redis_the_classes_of_ruby_stay_in_the_file(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (app / "both.json").write_text('{"ruby": {"A": {"queue": "a"}}, "python": {"Old": {}}}', "utf-8")
    assert main(["registry", "stub_app:broker", "--output", "both.json"]) == 0
    written = json.loads((app / "both.json").read_text("utf-8"))
    assert written["ruby"] == {"A": {"queue": "a"}}
    assert written["python"].keys() == {"Docs::Extract", "no_ruby_name"}
    assert "cannot be read" in capsys.readouterr().err


def test_stubs_in_ruby_of_our_own_actors_are_no_ruby_classes(app: Path) -> None:
    (app / "both.json").write_text('{"ruby": {"A": {}, "Py": {}}, "python": {"Py": {}}}', "utf-8")
    assert main(["stubs", "--from-manifest", "both.json", "--output", "ruby_jobs.py"]) == 0
    text = (app / "ruby_jobs.py").read_text("utf-8")
    assert "'A'" in text
    assert "'Py'" not in text


def test_a_command_line_that_is_none_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dramatiq_sidekiq_flow", "stubs"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_alone_it_prints_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dramatiq_sidekiq_flow"], check=True, capture_output=True, text=True, timeout=60
    )
    assert "stubs" in done.stdout


def test_an_actor_in_place_of_a_broker_is_not_called(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (app / "called_app.py").write_text(
        "import dramatiq\n"
        "from dramatiq_sidekiq_flow import SidekiqBroker\n"
        "broker = SidekiqBroker(url='redis://127.0.0.1:1')\n"
        "@dramatiq.actor(broker=broker)\n"
        "def extract():\n"
        "    print('called')\n",
        "utf-8",
    )
    assert main(["registry", "called_app:extract"]) == 2
    written = capsys.readouterr()
    assert "called_app:extract is an actor. Name its broker" in written.err
    assert "called" not in written.out
