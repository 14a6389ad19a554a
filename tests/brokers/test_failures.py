"""What fails, on every kind of broker: tried again, dead and retried from there, delivered twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import uuid
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import AsyncIO, SkipMessage
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from dramatiq_sidekiq_flow import (
    Catch,
    Chain,
    Group,
    Job,
    MayFail,
    Runs,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
    current_run,
)
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.errors import ConfigurationError

from ..redis_values import raws
from ..running import eventually
from .conftest import App, Make


def start(app: App, *names: Any) -> str:
    return Workflow(Chain(*map(app.step.message, names)), broker=app.broker).run()


def test_a_step_that_fails_is_tried_again(app: App) -> None:
    app.trouble.update(a=2, b=1)
    start(app, "a", "b", "c")
    with app.working():
        eventually(lambda: "c" in app.log)
        eventually(app.settled)
    assert app.log == ["a", "a", "a", "b", "b", "c"]
    assert app.dead() == []


def test_a_step_that_fails_for_good_is_dead_and_retried_from_there(make: Make) -> None:
    app = make(max_retries=1)
    app.trouble.update(b=2)
    run_id = start(app, "a", "b", "c")
    with app.working():
        (dead,) = eventually(app.dead)
        assert (dead["class"], dead["args"], dead["queue"], dead["retry"]) == ("step", ["b"], "python", 1)
        assert (dead["error_class"], dead["error_message"]) == ("RuntimeError", "trouble in b")
        assert dead["workflow_run_id"] == run_id
        ((barrier, _, _),) = dead["workflow_completion_callbacks"]
        # As long as it can be retried.
        assert app.client.ttl(barrier) > 180 * 86_400
        assert app.log == ["a", "b", "b"]
        app.retry_dead()
        eventually(lambda: "c" in app.log)
        eventually(app.settled)
    assert app.log == ["a", "b", "b", "b", "c"]
    assert app.dead() == []


def test_a_step_that_may_fail_does_not_stop_the_run(make: Make) -> None:
    """What takes its place comes through Sidekiq's queues; the bridge brings it."""
    app = make(max_retries=0)
    app.trouble.update(a=9, b=9, e=9)
    message = app.step.message
    fallback = Chain(message("c"), Group(message("d"), MayFail(message("e"))))
    tree = Chain(MayFail(message("a")), Catch(message("b"), fallback), message("f"))
    run_id = Workflow(tree, broker=app.broker).run()
    with app.working():
        eventually(lambda: "f" in app.log)
        eventually(app.settled)
    assert [name for name in app.log if name not in "de"] == ["a", "b", "c", "f"]
    assert sorted(app.log) == ["a", "b", "c", "d", "e", "f"]
    assert sorted(job["args"][0] for job in app.dead()) == ["a", "b", "e"]
    assert all(job["swf_died_in"] == run_id and "workflow_run_id" not in job for job in app.dead())
    run = Runs(app.broker).wait(run_id, timeout=20_000)
    assert (run.state, run.progress.done, run.progress.failed) == ("done", 3, 3)


def test_a_retry_keeps_the_barriers_alive(make: Make) -> None:
    app = make()
    app.trouble.update(a=1)
    start(app, "a", "b")
    for key in raws(app.client.keys("*_ran")):
        app.client.expire(key, 100)
        app.client.expire(key.removesuffix(b"_ran"), 100)
    ttls: list[int] = []

    class Look(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            if message.options.get("retries"):
                ttls.extend(app.client.ttl(key) for key in app.client.keys("*_ran"))

    app.broker.add_middleware(Look())
    with app.working():
        eventually(lambda: "b" in app.log)
    assert ttls[0] > 20 * 86_400


def test_without_retries_a_failure_is_dead_and_not_done(make: Make) -> None:
    app = make(middleware=[])
    app.trouble.update(a=1)
    start(app, "a", "b")
    with app.working():
        (dead,) = eventually(app.dead)
        assert dead["error_class"] == "RuntimeError"
        assert app.log == ["a"]
        app.retry_dead()
        eventually(lambda: "b" in app.log)


def test_a_step_that_is_skipped_does_not_advance(app: App) -> None:
    skipped: list[str] = []

    class Skip(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            if not skipped:
                skipped.append(message.message_id)
                raise SkipMessage("not now")

    app.broker.add_middleware(Skip())
    start(app, "a", "b")
    with app.working():
        (dead,) = eventually(app.dead)
        assert dead["error_class"] == "StepSkipped"
        assert [dead["jid"]] == skipped
        assert app.log == []
        app.retry_dead()
        eventually(lambda: "b" in app.log)
    assert app.log == ["a", "b"]


def test_a_step_that_is_rejected_does_not_advance(app: App) -> None:
    class Reject(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            if message.args == ("a",):
                message.fail()

    app.broker.add_middleware(Reject())
    start(app, "a", "b")
    with app.working():
        (dead,) = eventually(app.dead)
    assert dead["error_class"] == "StepRejected"
    assert app.log == []


@pytest.mark.parametrize("options", [{"retry": 0}, {"retry": False}, {"retry": 0, "dead": False}], ids=str)
def test_a_step_that_is_not_retried_is_dead(app: App, options: dict[str, Any]) -> None:
    """Also with ``retry: false`` or ``dead: false``, which discard a plain job: its run waits for it."""
    app.trouble.update(a=9)
    Workflow(Chain(Job("step", "a", **options), app.step.message("b")), broker=app.broker).run()
    with app.working(threads=1):
        eventually(lambda: app.log == ["a"])
        app.step.send("next")
        eventually(lambda: "next" in app.log)
    assert app.log == ["a", "next"]
    assert [job["args"] for job in app.dead()] == [["a"]]


def test_a_run_whose_barrier_is_gone_is_seen(app: App) -> None:
    start(app, "a", "b")
    app.client.delete(*app.client.keys("*_ran"))
    with app.working():
        (dead,) = eventually(app.dead)
        assert dead["error_class"] == "BarrierExpired"
        app.step.send("next")
        eventually(lambda: "next" in app.log)
    assert app.log == ["a", "next"]


@pytest.mark.parametrize("stack", [[["queues", None, True]], "junk", [[str(uuid.uuid4()), {"__type__": "?"}, False]]])
def test_a_callback_stack_that_is_none_is_dead(app: App, stack: Any) -> None:
    app.broker.enqueue(
        app.step.message_with_options(args=("a",), workflow_run_id="r", workflow_completion_callbacks=stack)
    )
    with app.working():
        (dead,) = eventually(app.dead)
        assert dead["error_class"] in ("InvalidCallbacks", "InvalidNode")
        assert dead["workflow_completion_callbacks"] == stack
        app.step.send("next")
        eventually(lambda: "next" in app.log)
    assert app.log == ["next"]


def test_a_step_that_comes_twice_counts_once(make: Make) -> None:
    """A child of a group, the last one, and a step of a chain, each at once and late."""
    app = make()
    seen: list[dramatiq.Message[Any]] = []

    class Twice(dramatiq.Middleware):
        def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            if message.message_id not in {other.message_id for other in seen}:
                seen.append(message)
                broker.enqueue(message)

    app.broker.add_middleware(Twice())
    step = app.step.message
    group = Group(step("a"), step("b"), Job("Docs::Step", "ruby", queue="ruby"))
    Workflow(Chain(group, Group(step("c"), step("d")), step("e")), broker=app.broker).run()
    (barrier,) = (
        key for key in raws(app.client.keys("*-*")) if app.client.type(key) == b"string" and app.client.get(key) == b"3"
    )
    with app.working(threads=1):
        eventually(lambda: app.log.count("a") == app.log.count("b") == 2)
        # Two of the three are counted, each once.
        eventually(lambda: app.client.get(barrier) == b"1" and app.client.scard(barrier + b":u") == 2)
        with app.ruby():
            eventually(lambda: app.log.count("e") == 2, what=f"both; seen {app.log}")
        for message in list(seen):
            app.broker.enqueue(message)
        eventually(lambda: app.log.count("e") == 3 and len(app.log) == 16, what=f"all, late: {app.log}")
    # Each ran as often as it was delivered; none was started a second time.
    assert {name: app.log.count(name) for name in "abcde"} == dict.fromkeys("abcde", 3)
    assert len(seen) == 5
    assert app.log.index("ruby") < min(app.log.index("c"), app.log.index("d"))
    assert app.settled()
    assert app.dead() == []


def test_redis_lost_in_the_middle_of_an_advance(make: Make, tmp_path: Path) -> None:
    """The Sidekiq Redis is killed while an actor runs, and comes back: the actor does not run again."""
    with EmbeddedServer(appendonly=True, appendfsync="always", data_dir=tmp_path) as sidekiq:
        app = make(sidekiq.url)
        ran: list[str] = []
        go = threading.Event()

        @dramatiq.actor(queue_name="python", broker=app.broker)
        def hold() -> dict[str, int]:
            ran.append("hold")
            go.wait(30)
            return {"held": 1}

        run_id = Workflow(Chain(hold.message(), app.step.message("after")), broker=app.broker).run()
        tried: list[str] = []
        passed: list[str] = []

        class Watch(dramatiq.Middleware):
            """Hears of each try to acknowledge, or, after ours, of those that may be made."""

            def __init__(self, heard: list[str]) -> None:
                self.heard = heard

            def before_ack(self, broker: Any, message: Any) -> None:
                self.heard.append(message.actor_name)

        app.broker.add_middleware(Watch(tried), before=WorkflowMiddleware)
        app.broker.add_middleware(Watch(passed))
        with app.working():
            eventually(lambda: ran)
            os.kill(sidekiq.pid, signal.SIGKILL)
            eventually(lambda: not sidekiq.running)
            go.set()
            eventually(lambda: len(tried) >= 3)
            assert passed == []
            sidekiq.start()
            eventually(lambda: "after" in app.log)
            eventually(app.settled)
        assert ran == ["hold"]
        assert app.client.hgetall(f"swf:mem:{run_id}").keys() == {b"held", b"after"}
        assert app.dead() == []


def test_the_bridge_treats_what_it_cannot_hand_over_as_sidekiq_does(app: App) -> None:
    app.client.lpush("queue:python", b"{not json", json.dumps({"class": "Nobody", "args": [], "jid": "j", "retry": 3}))
    app.client.lpush("queue:python", json.dumps({"class": "step", "args": ["fine"], "jid": "k", "retry": True}))
    with app.working():
        eventually(lambda: "fine" in app.log)
        eventually(lambda: app.client.zcard("retry") == 1 and app.client.zcard("dead") == 1)
    (again,) = [json.loads(member) for member in raws(app.client.zrange("retry", 0, -1))]
    assert (again["class"], again["error_class"]) == ("Nobody", "ActorNotFound")
    assert app.dead()[0]["error_class"] == "MalformedPayload"
    assert not app.client.keys("swf:inflight:*")


def test_keys_of_ruby_are_handed_on(app: App) -> None:
    """A trace and a tenant come from Ruby, pass a step here, and reach Ruby again."""
    with app.ruby() as there, app.working():
        rest = {"__type__": "chain", "children": [{"__type__": "job", "class": "Last", "args": [], "queue": "ruby"}]}
        barrier = str(uuid.uuid4())
        app.client.set(barrier, 1, ex=1000)
        app.client.set(f"{barrier}_ran", -1, ex=1000)
        job = {
            "class": "step",
            "args": ["here"],
            "jid": "f" * 24,
            "queue": "python",
            "retry": 2,
            "cattr": {"tenant": 7},
            "traceparent": "00-1-2-01",
            "workflow_run_id": "run",
            "workflow_completion_callbacks": [[barrier, rest, False]],
        }
        app.client.lpush("queue:python", json.dumps(job))
        eventually(lambda: there.jobs)
    assert app.log == ["here", "Last"]
    assert {key: there.jobs[0][key] for key in ("cattr", "traceparent", "workflow_run_id")} == {
        "cattr": {"tenant": 7},
        "traceparent": "00-1-2-01",
        "workflow_run_id": "run",
    }


def test_async_actors_and_results(app: App) -> None:
    app.broker.add_middleware(AsyncIO())
    backend = StubBackend()
    app.broker.add_middleware(Results(backend=backend))
    seen: list[Any] = []

    @dramatiq.actor(queue_name="python", broker=app.broker, store_results=True)
    async def think(n: int) -> dict[str, int]:
        await asyncio.sleep(0)
        here = current_run()
        seen.append((here.run_id, here.depth, here.memory.read()))
        return {"n": n}

    run_id = Workflow(Chain(think.message(1), think.message(2)), broker=app.broker).run()
    with app.working():
        eventually(lambda: len(seen) == 2)
        eventually(app.settled)
    assert seen == [(run_id, 1, {}), (run_id, 0, {"n": 1})]


def test_the_same_run_id_starts_once_and_is_finished_after_a_crash(make: Make) -> None:
    app = make()
    enqueue = app.broker.enqueue
    died: list[Any] = []

    def dies(message: Any, delay: int | None = None) -> Any:
        if len(died) < 1 and message.args == ("b",):
            died.append(1)
            raise ConnectionClosed(ConnectionError("away"))
        return enqueue(message, delay=delay)

    app.broker.enqueue = dies  # type: ignore[method-assign]
    step = app.step.message
    workflow = Workflow(Chain(Group(step("a"), step("b")), step("c")), broker=app.broker)
    with pytest.raises(ConnectionClosed):
        workflow.run("mine")
    assert workflow.run("mine") == "mine"
    assert workflow.run("mine") == "mine"
    with app.working():
        # The second "a" may come after "c": the group has counted the first one.
        eventually(lambda: "c" in app.log and app.log.count("a") == 2)
        eventually(app.settled)
    assert sorted(app.log) == ["a", "a", "b", "c"]


class Flaky(StubBroker):
    """Refuses some messages."""

    refuse: Exception | None = None

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        if self.refuse is not None and message.args == ("b",):
            error, self.refuse = self.refuse, None
            raise error
        return super().enqueue(message, delay=delay)


@pytest.mark.parametrize("error", [ConnectionClosed(ConnectionError("away")), ConnectionResetError("away")])
def test_a_broker_that_is_away_gets_the_continuation_later(redis_url: str, error: Exception) -> None:
    broker = Flaky(fail_fast_default=False)
    app = App(broker, redis_url)
    start(app, "a", "b")
    broker.refuse = error
    with app.working():
        eventually(lambda: "b" in app.log)
    assert app.log == ["a", "b"]
    # And what comes over the bridge waits in Sidekiq's queue.
    broker.refuse = error
    app.client.lpush("queue:python", json.dumps({"class": "step", "args": ["b"], "jid": "k", "retry": True}))
    with app.working():
        eventually(lambda: app.log == ["a", "b", "b"])
    assert app.dead() == []
    app.close()


def test_a_continuation_that_cannot_be_enqueued_is_dead_and_retried_from_there(redis_url: str) -> None:
    broker = Flaky(fail_fast_default=False)
    app = App(broker, redis_url)
    start(app, "a", "b")
    broker.refuse = ValueError("too large")
    with app.working():
        (dead,) = eventually(app.dead)
        assert (dead["args"], dead["error_class"], dead["error_message"]) == (["a"], "ValueError", "too large")
        app.retry_dead()
        eventually(lambda: "b" in app.log)
    assert app.log == ["a", "a", "b"]
    app.close()


def test_the_sidekiq_redis_must_be_named(redis_url: str) -> None:
    broker = StubBroker()
    broker.add_middleware(WorkflowMiddleware())
    with pytest.raises(ConfigurationError, match="url="):
        Workflow(Chain(), broker=broker)
    with pytest.raises(ConfigurationError, match="url="):
        dramatiq.Worker(broker).start()
    middleware = WorkflowMiddleware(url=redis_url)
    for broker in (first := StubBroker(), second := StubBroker()):
        broker.add_middleware(middleware)
    Workflow(Chain(), broker=first)
    with pytest.raises(ConfigurationError, match="another broker"):
        Workflow(Chain(), broker=second)
    with pytest.raises(ConfigurationError, match="pass url, client and replication to the broker"):
        SidekiqBroker(url=redis_url).add_middleware(WorkflowMiddleware(url=redis_url))
    with pytest.raises(ConfigurationError, match="no bridge"):
        WorkflowMiddleware().bridge_of(SidekiqBroker(url=redis_url))


def test_the_bridge_can_be_left_to_another_process(make: Make) -> None:
    app = make(bridge=False)
    app.client.lpush("queue:python", json.dumps({"class": "step", "args": ["x"], "jid": "k", "retry": True}))
    app.client.lpush("queue:other", json.dumps({"class": "step", "args": ["y"], "jid": "l", "retry": True}))
    with app.working():
        bridge = app.middleware.bridge_of(app.broker)
        assert bridge.queues == set()
        assert app.client.llen("queue:python") == 1
        bridge.start(["python"])
        assert bridge.queues == {"python"}
        eventually(lambda: app.log == ["x"])
        bridge.stop()
    assert app.client.llen("queue:other") == 1
    assert app.client.zcard("swf:workers") == 0
