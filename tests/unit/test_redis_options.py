"""Which Redis a command reads: ``--app`` and ``--url``, then the environment."""

from __future__ import annotations

from pathlib import Path

import click
import dramatiq
import pytest

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.cli.redis_options import redis_options

APP = """
from dramatiq_sidekiq_flow import SidekiqBroker
broker = SidekiqBroker(url="redis://127.0.0.1:1/5")
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "options_app.py").write_text(APP, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("SIDEKIQ_FLOW_APP", raising=False)
    return "options_app:broker"


@click.command()
@redis_options
def database(broker: dramatiq.Broker) -> str:
    assert isinstance(broker, SidekiqBroker)
    return broker.connection.url.rpartition("/")[2]


def found(*arguments: str) -> str:
    result: str = database.main([*arguments], standalone_mode=False)
    return result


def test_options_come_before_the_environment(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("--app", app) == "5"
    assert found("--url", "redis://127.0.0.1:1/6") == "6"
    monkeypatch.setenv("SIDEKIQ_FLOW_APP", "no_such_app:broker")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/7")
    assert found("--app", app) == "5"
    assert found("--url", "redis://127.0.0.1:1/6") == "6"


def test_in_the_environment_the_app_comes_first(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/7")
    assert found() == "7"
    monkeypatch.setenv("SIDEKIQ_FLOW_APP", app)
    assert found() == "5"


def test_one_of_them_is_needed(app: str) -> None:
    with pytest.raises(click.UsageError, match="set SIDEKIQ_FLOW_APP or REDIS_URL"):
        found()
    with pytest.raises(click.UsageError, match="either --app app:broker or --url"):
        found("--app", app, "--url", "redis://127.0.0.1:1/6")
