"""Which hooks are called for a job: those that have something to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from dramatiq import Middleware
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import (
    AgeLimit,
    Callbacks,
    MiddlewareError,
    Pipelines,
    ShutdownNotifications,
    SkipMessage,
    TimeLimit,
)

from dramatiq_sidekiq_flow.broker.dramatiq_internals import OPTION_HOOKS
from dramatiq_sidekiq_flow.broker.enqueue_hooks import EnqueueHooks
from dramatiq_sidekiq_flow.broker.hook_table import JOB_HOOKS, HookTable, for_other_brokers
from dramatiq_sidekiq_flow.broker.hooked_broker import HookedBroker

BEFORE, AFTER, SKIP = "before_process_message", "after_process_message", "after_skip_message"


class Named(Middleware):
    """Notes its calls."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def before_process_message(self, broker: Any, message: Any) -> None:
        self.calls.append(f"{self.name} before")

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        self.calls.append(f"{self.name} after {result}")


class Broker(HookedBroker):
    """A broker in memory, as far as hooks go."""

    def __init__(self, *middleware: Middleware, own: Middleware | None = None) -> None:
        super().__init__(list(middleware), own or Middleware(), HookTable())
        self.queues = {}

    def declare_queue(self, queue_name: str) -> None:
        pass


def job(**options: Any) -> Any:
    return SimpleNamespace(actor_name="step", options=options, message_id="1", failed=False, message_timestamp=0)


def declare(broker: dramatiq.Broker, **options: Any) -> Any:
    broker.actor_options |= options.keys()
    return dramatiq.actor(broker=broker, actor_name="step", **options)(lambda: None)


def called(broker: Broker, hook: str) -> list[Any]:
    """The middleware that is called for a message without options."""
    return [each for each, idle in broker._hooks.of(hook, broker, "step") if not idle]


def test_only_hooks_that_exist_are_called_in_dramatiqs_order() -> None:
    calls: list[str] = []
    broker = Broker(Named("a", calls), Middleware(), TimeLimit(), Named("b", calls), own=Named("own", calls))
    declare(broker)
    broker.emit_before("process_message", job())
    broker.emit_after("process_message", job(), result=1)
    assert calls == ["own before", "a before", "b before", "b after 1", "a after 1", "own after 1"]
    assert len(called(broker, BEFORE)) == 4
    assert called(broker, "before_ack") == []


def test_a_change_of_the_list_counts_at_once() -> None:
    calls: list[str] = []
    broker = Broker()
    declare(broker)
    broker.emit_before("process_message", job())
    broker.middleware.append(Named("a", calls))
    broker.emit_before("process_message", job())
    broker.middleware[0] = Named("b", calls)
    broker.emit_before("process_message", job())
    broker.middleware = [Named("c", calls)]
    broker.emit_before("process_message", job())
    broker.middleware.clear()
    broker.emit_before("process_message", job())
    assert calls == ["a before", "b before", "c before"]


def test_a_hook_that_is_set_later_is_found_with_a_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    plain = Middleware()
    broker = Broker(plain, TimeLimit())
    declare(broker)
    broker.emit_before("ack", job())
    plain.before_ack = lambda broker, message: calls.append("object")  # type: ignore[method-assign]
    monkeypatch.setattr(TimeLimit, "before_ack", lambda self, broker, message: calls.append("class"))
    broker._hooks.age()
    assert called(broker, "before_ack") == []
    monkeypatch.setattr("dramatiq_sidekiq_flow.broker.hook_table.RENEW", -1)
    broker._hooks.age()
    broker.emit_before("ack", job())
    assert calls == ["object", "class"]


def prepared(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process that waits for jobs look up the hooks, which are old enough."""
    monkeypatch.setattr("dramatiq_sidekiq_flow.broker.hook_table.RENEW", -1)
    broker._hooks.prepare()
    monkeypatch.undo()


def test_a_hook_that_is_set_later_is_found_by_a_process_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    plain = Middleware()
    broker = Broker(plain)
    declare(broker)
    broker.emit_before("ack", job())
    plain.before_ack = lambda broker, message: calls.append("set later")  # type: ignore[method-assign]
    broker._hooks.prepare()
    broker.emit_before("ack", job())
    assert calls == []
    prepared(broker, monkeypatch)
    broker.emit_before("ack", job())
    assert calls == ["set later"]


def test_a_process_that_waits_finds_the_hooks_of_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(TimeLimit())
    declare(broker)
    broker.emit_before("process_message", job())
    prepared(broker, monkeypatch)

    def late(*args: Any) -> Any:
        raise AssertionError("A hook is looked up while a job waits.")

    monkeypatch.setattr(HookTable, "_find", late)
    broker.emit_before("process_message", job())
    # A change of the list still counts at once.
    broker.middleware.append(Middleware())
    with pytest.raises(AssertionError, match="looked up"):
        broker.emit_before("process_message", job())


def test_a_process_that_waits_looks_up_few_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dramatiq_sidekiq_flow.broker.hook_table.PREPARED", 1)
    broker = Broker(TimeLimit())
    for name in ("step", "other"):
        dramatiq.actor(broker=broker, actor_name=name)(lambda: None)
        broker.emit_before("process_message", SimpleNamespace(actor_name=name, options={}))
    prepared(broker, monkeypatch)
    assert list(broker._hooks._table[1]["before_process_message"]) == ["step"]


def test_a_hook_for_other_brokers_is_called_if_a_subclass_has_its_own() -> None:
    class Marked(Named):
        @for_other_brokers
        def before_ack(self, broker: Any, message: Any) -> None:
            self.calls.append(f"{self.name} ack")

        after_enqueue = for_other_brokers(lambda self, broker, message, delay: None)

    class Own(Marked):
        def before_ack(self, broker: Any, message: Any) -> None:
            super().before_ack(broker, message)

        def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            pass

    calls: list[str] = []
    broker = Broker(Marked("marked", calls), Own("own", calls))
    declare(broker)
    broker.emit_before("ack", job())
    assert calls == ["own ack"]
    found = [EnqueueHooks().found([each]) for each in broker.middleware]
    assert found == [False, True]


def test_middleware_that_is_no_subclass_is_called_as_dramatiq_calls_it(caplog: pytest.LogCaptureFixture) -> None:
    class Anything:
        def __getattr__(self, name: str) -> Any:
            if not name.startswith(("before", "after")):
                raise AttributeError(name)
            return lambda *args, **kwargs: calls.append(name)

    calls: list[str] = []
    broker = Broker()
    declare(broker)
    broker.middleware = [Anything(), object()]  # type: ignore[list-item]
    broker.emit_before("process_message", job())
    assert calls == [BEFORE]
    (record,) = caplog.records
    assert (record.levelname, record.getMessage().split(" of ")[0]) == ("CRITICAL", f"Unexpected failure in {BEFORE}")


def test_errors_of_hooks(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            raise error

        after_ack = after_nack = before_process_message

    calls: list[str] = []
    error: Exception = ValueError("bad")
    broker = Broker(Failing(), Named("next", calls))
    declare(broker)
    broker.emit_before("process_message", job())
    assert calls == ["next before"]
    for error in (SkipMessage("skipped"), MiddlewareError("stop")):
        with pytest.raises(type(error)):
            broker.emit_before("process_message", job())
        broker.emit_after("ack", job())
    assert [record.getMessage().split(" of ")[0] for record in caplog.records] == [
        f"Unexpected failure in {BEFORE}",
        "Unexpected failure in after_ack",
        "Unexpected failure in after_ack",
    ]


def test_names_of_unknown_actors_are_not_kept() -> None:
    """They come from payloads."""
    broker = Broker(TimeLimit())
    for number in range(5):
        broker._hooks.of(BEFORE, broker, f"unknown {number}")
    assert not any(broker._hooks._table[1].values())


@pytest.mark.parametrize(
    ("kind", "hook", "option"),
    [
        (AgeLimit, BEFORE, {"max_age": 1}),
        (ShutdownNotifications, BEFORE, {"notify_shutdown": True}),
        (ShutdownNotifications, AFTER, {"notify_shutdown": True}),
        (ShutdownNotifications, SKIP, {"notify_shutdown": True}),
        (Callbacks, AFTER, {"on_success": "step"}),
        (Callbacks, AFTER, {"on_failure": "step"}),
    ],
)
def test_hooks_that_look_at_an_option(kind: Any, hook: str, option: dict[str, Any]) -> None:
    (name,) = option
    broker = Broker(kind())
    declare(broker)
    assert called(broker, hook) == []
    # The option may be the actor's,
    broker = Broker(kind())
    declare(broker, **option)
    assert called(broker, hook) == broker.middleware
    # the middleware's,
    broker = Broker(kind(**option) if kind is not Callbacks else type("Own", (Callbacks,), {})())
    declare(broker)
    assert called(broker, hook) == broker.middleware
    # or the message's: see the next test.
    assert name in OPTION_HOOKS[kind, hook].options


def test_an_option_of_the_message_calls_all_hooks() -> None:
    """Also one that a hook before has set."""

    class Chooses(Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            message.options["max_age"] = 1

    broker = Broker(Chooses(), AgeLimit())
    declare(broker)
    message = job()
    message.fail = lambda: None
    with pytest.raises(SkipMessage, match="age limit"):
        broker.emit_before("process_message", message)


def test_a_hook_that_was_replaced_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(AgeLimit, BEFORE, lambda self, broker, message: calls.append("mine"))
    broker = Broker(AgeLimit())
    declare(broker)
    broker.emit_before("process_message", job())
    assert calls == ["mine"]


@pytest.mark.parametrize(("kind", "hook"), [key for key in OPTION_HOOKS if key[0] is not Pipelines])
@pytest.mark.parametrize("exception", [None, ValueError()])
def test_they_do_nothing_without_an_option(kind: Any, hook: str, exception: Exception | None) -> None:
    """Of this version of Dramatiq."""
    broker = StubBroker(middleware=[])
    declare(broker)
    middleware = kind()
    before = {
        name: repr(vars(value) if hasattr(value, "__dict__") else value) for name, value in vars(middleware).items()
    }
    options = {"exception": exception} if hook == AFTER else {}
    getattr(middleware, hook)(broker, job(), **options)
    after = {
        name: repr(vars(value) if hasattr(value, "__dict__") else value) for name, value in vars(middleware).items()
    }
    assert before == after
    assert not broker.queues["default"].qsize()


def test_the_signals_of_a_job_are_dramatiqs() -> None:
    assert all(hasattr(Middleware, hook) for hook in JOB_HOOKS)
