"""The copy of the registry that a process keeps: when it is read again, and what it makes of bad entries."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidOptions
from dramatiq_sidekiq_flow.registry import file as registry_file
from dramatiq_sidekiq_flow.registry import registry as module
from dramatiq_sidekiq_flow.registry.registry import Entry, Registry
from dramatiq_sidekiq_flow.store import class_registry as store


class Redis:
    """What Redis holds, what the time is, and how often it was asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reads = 0
        self.error: Exception | None = None
        self.python: Any = {}
        self.ruby: Any = {}

    def monotonic(self) -> float:
        return self.now

    def read(self, connection: Any, languages: Any) -> list[Any]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        parts = {"python": self.python, "ruby": self.ruby}
        return [
            part if isinstance(part, Exception) else {name: json.dumps(value).encode() for name, value in part.items()}
            for part in (parts[language] for language in languages)
        ]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Redis:
    held = Redis()
    monkeypatch.setattr(module, "time", held)
    monkeypatch.setattr(store, "read", held.read)
    return held


@pytest.fixture
def registry(held: Redis) -> Registry:
    connection: Any = None
    return Registry(connection)


def queue(registry: Registry, name: str) -> Any:
    entry = registry.find(name)
    return entry and entry.options.get("queue")


def test_a_copy_serves_for_half_a_minute(registry: Registry, held: Redis) -> None:
    held.ruby = {"A": {"queue": "one"}, "B": {"queue": "b"}}
    assert (queue(registry, "A"), queue(registry, "B"), queue(registry, "A")) == ("one", "b", "one")
    assert held.reads == 1
    held.ruby = {"A": {"queue": "two"}}
    held.now += 30
    assert (queue(registry, "A"), held.reads) == ("one", 1)
    held.now += 1
    assert (queue(registry, "A"), queue(registry, "B"), held.reads) == ("two", None, 2)


def test_an_unknown_name_is_looked_for_at_once_but_not_again_and_again(registry: Registry, held: Redis) -> None:
    assert queue(registry, "A") is None
    held.ruby = {"B": {"queue": "b"}}
    held.now += 2
    assert (queue(registry, "B"), held.reads) == ("b", 2)
    for _ in range(10):
        held.now += 2
        assert queue(registry, "A") is None
    assert held.reads == 2
    held.ruby = {"A": {"queue": "a"}}
    held.now += 11
    assert (queue(registry, "A"), held.reads) == ("a", 3)


def test_many_unknown_names_share_one_look_a_second(registry: Registry, held: Redis) -> None:
    for number in range(100):
        held.now += 0.05
        registry.find(f"Nothing{number}")
    assert held.reads <= 6


def test_a_worker_renews_its_copy_with_the_beat(
    registry: Registry, held: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[float] = []
    monkeypatch.setattr(module, "publish", lambda broker: published.append(held.now))
    broker: Any = None
    for _ in range(100):
        registry.beat(broker)
        held.now += 10
    assert published == [1000.0, 1600.0]
    assert held.reads == 0  # nobody asks for a class of Ruby's here
    held.ruby = {"A": {"queue": "a"}}
    assert queue(registry, "A") == "a"
    for _ in range(60):
        held.now += 10
        registry.beat(broker)
        reads = held.reads
        assert queue(registry, "A") == "a"
        assert held.reads == reads  # so that no step waits for it


def test_what_could_not_be_published_is_published_soon(
    registry: Registry, held: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    def failing(broker: Any) -> None:
        tries.append(held.now)
        raise redis.ConnectionError

    monkeypatch.setattr(module, "publish", failing)
    broker: Any = None
    for _ in range(13):
        with contextlib.suppress(redis.ConnectionError):
            registry.beat(broker)
        held.now += 10
    assert tries == [1000.0, 1060.0, 1120.0]


def test_without_redis_what_is_known_serves_and_the_rest_is_not_guessed(registry: Registry, held: Redis) -> None:
    held.ruby = {"A": {"queue": "a"}}
    queue(registry, "A")
    held.error = redis.ConnectionError("gone")
    held.now += 100
    assert queue(registry, "A") == "a"
    with pytest.raises(redis.ConnectionError):
        registry.find("B")


def test_a_hash_that_redis_refuses_leaves_the_other(
    registry: Registry, held: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    held.ruby, held.python = {"A": {"queue": "a"}}, redis.ResponseError("WRONGTYPE")
    for _ in range(3):
        assert queue(registry, "A") == "a"
        held.now += 31
    assert caplog.text.count("python's classes cannot be read") == 1


def test_a_python_actor_comes_before_its_stub_in_ruby(registry: Registry, held: Redis) -> None:
    held.python, held.ruby = {"A": {"queue": "python"}}, {"A": {"queue": "ruby"}}
    assert queue(registry, "A") == "python"


@pytest.mark.parametrize(
    "value", [[], "queue", {"queue": 7}, {"retry": None}, {"class": "X"}, {"workflow_run_id": "X"}, {"input": 1}]
)
def test_an_entry_that_is_none_is_passed_over(
    registry: Registry, held: Redis, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    held.ruby = {"A": value, "B": {"queue": "b"}}
    assert (queue(registry, "A"), queue(registry, "A"), queue(registry, "B")) == (None, None, "b")
    assert caplog.text.count("entry for A is invalid and was ignored") == 1
    with pytest.raises(InvalidOptions, match="^A: "):
        Entry.load("A", value)


def test_an_entry_is_written_as_it_was_read() -> None:
    value = {"queue": "q", "retry": False, "lock": "x", "input": {"type": "object"}}
    entry = Entry.load("A", value)
    assert (entry.options, entry.input, entry.output) == (
        {"queue": "q", "retry": False, "lock": "x"},
        {"type": "object"},
        None,
    )
    assert entry.dump() == value


def test_a_file_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    text = registry_file.dump({"ruby": {"B": Entry("B", {"queue": "ü"}), "A": Entry("A", {})}, "python": {}})
    path.write_text(text, "utf-8")
    assert list(json.loads(text)["ruby"]) == ["A", "B"]
    assert registry_file.dump(registry_file.read(path)) == text


@pytest.mark.parametrize("text", ["", "[]", '{"perl": {}}', '{"ruby": []}', '{"ruby": {"A": {"retry": "often"}}}'])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "registry.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match="registry.json"):
        registry_file.read(path)
    with pytest.raises(ConfigurationError, match="none.json"):
        registry_file.read(tmp_path / "none.json")
