"""Stubs for Ruby, helpers for Python, and the registry as a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dramatiq_sidekiq_flow.cli.main import main
from dramatiq_sidekiq_flow.cli.stubs import python, ruby
from dramatiq_sidekiq_flow.typed.registry import Entry

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

    def perform(*)
      raise NotImplementedError, "Docs::Extract runs in Python: no Ruby worker may take its queue"
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
        (["stubs", "stub_app:dramatiq.__version__"], "no SidekiqBroker"),
        (["stubs", "--from-manifest", "none.json"], "none.json"),
    ],
)
def test_an_error_is_one_line(
    app: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_ruby_text_is_no_ruby_code() -> None:
    text = ruby({"A": Entry("A", {"queue": 'q"#{exit}', "retry": None})})
    assert 'queue: "q\\"\\#{exit}", retry: nil' in text


def test_names_that_python_does_not_have_are_bent() -> None:
    assert "class_ = RubyJob('class')" in python({"class": Entry("class", {})})


def test_alone_it_prints_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dramatiq_sidekiq_flow"], check=True, capture_output=True, text=True, timeout=60
    )
    assert "stubs" in done.stdout
