"""The same workflows on every kind of broker."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, Runs, WithDelay, Workflow
from dramatiq_sidekiq_flow.store import runs

from ..redis_values import as_bytes, raws
from ..running import eventually
from .conftest import App


def run(app: App, tree: Any, last: Any) -> str:
    """Run a workflow until its last step has ended, and what follows from it."""
    run_id = Workflow(tree, broker=app.broker).run()
    with app.working():
        eventually(lambda: last in app.log, what=f"step {last!r}; seen {app.log}")
        eventually(app.settled, what="the end of the run")
    return run_id


def test_a_chain(app: App) -> None:
    run_id = run(app, Chain(*(app.step.message(n) for n in range(5))), 4)
    assert app.log == [0, 1, 2, 3, 4]
    assert app.client.hgetall(f"swf:mem:{run_id}") == {b"%d" % n: b"%d" % (n + 1) for n in range(5)}


def test_groups_chains_delays_and_empty_ones(app: App) -> None:
    step = app.step.message
    tree = Chain(
        step("a"),
        Group(step("b"), Chain(step("c"), Group(step("d"), WithDelay(step("e"), 30))), Group(), Chain()),
        WithDelay(Group(), 30),
        Chain(),
        WithDelay(Chain(step("f"), step("g")), 30),
    )
    run_id = run(app, tree, "g")
    assert sorted(app.log) == list("abcdefg")
    state = as_bytes(app.client.hget(f"swf:flow:{run_id}", "state"))
    assert (state, app.client.hlen(f"swf:flow:{run_id}:times")) == (b"done", 1 + 7)
    shown = Runs(app.broker).get(run_id)
    assert (shown.state, shown.progress.done, shown.failures) == ("done", 7, ())
    assert app.log[0] == "a"
    assert app.log.index("c") < min(app.log.index("d"), app.log.index("e"))
    assert app.log[-2:] == ["f", "g"]
    # All that a run leaves behind expires (but for the broker's own).
    left = [k for k in raws(app.client.keys()) if app.client.ttl(k) < 0 and not k.startswith(b"dramatiq")]
    assert set(left) <= {b"queues", b"swf:workers"}


@pytest.mark.parametrize("place", ["start", "advance"])
def test_a_staged_fan_out_has_its_barriers_before_a_step_is_enqueued(
    app: App, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(runs, "MAX_INLINE", 5)
    step = app.step.message
    missing: list[str] = []

    class Look(dramatiq.Middleware):
        def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            stack = message.options.get("workflow_completion_callbacks") or []
            missing.extend(barrier for barrier, *_ in stack if not app.client.exists(barrier))

    app.broker.add_middleware(Look())

    chains = Group(*(Chain(step(n), Job("R", n, queue="ruby"), step("after")) for n in range(8)))
    Workflow(chains if place == "start" else Chain(step("first"), chains), broker=app.broker).run()
    with app.working():
        eventually(lambda: app.client.llen("queue:ruby") == 8, what="8 jobs for Ruby")
    assert missing == []
    assert sorted(app.log[-8:]) == list(range(8))
    assert app.client.keys("swf:fanout*") == []


def test_a_delay_is_the_brokers(app: App) -> None:
    """At the start of a run, and of a step that follows."""
    delays: list[tuple[Any, int]] = []

    class Look(dramatiq.Middleware):
        def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            if delay is not None:
                delays.append((message.args[0], delay))

    app.broker.add_middleware(Look())
    step = app.step.message
    tree = Group(WithDelay(step("a"), 600_000), Chain(step("b"), WithDelay(WithDelay(step("c"), 600_000), 300_000)))
    Workflow(tree, broker=app.broker).run()
    with app.working():
        eventually(lambda: len(delays) == 2)
    (first, at_first), (second, then) = delays
    assert (first, second) == ("a", "c")
    # As long as was said, less what it took to get there.
    assert 400_000 < at_first <= 600_000
    assert 700_000 < then <= 900_000
    assert app.log == ["b"]


def test_ruby_takes_part(app: App) -> None:
    """First, last, in a group, and delayed; its jobs come back over the bridge."""
    step = app.step.message

    def ruby(name: str) -> Job:
        return Job("Docs::Step", name, queue="ruby", retry=3, tags=["x"])

    tree = Chain(
        ruby("r1"),
        step("p1"),
        Group(ruby("r2"), step("p2"), Chain(ruby("r3"), step("p3"))),
        WithDelay(ruby("r4"), 20),
        WithDelay(step("p4"), 20),
        Group(ruby("r5"), step("p5")),
        step("p6"),
    )
    with app.ruby() as there:
        run_id = run(app, tree, "p6")
    assert sorted(app.log) == ["p1", "p2", "p3", "p4", "p5", "p6", "r1", "r2", "r3", "r4", "r5"]
    assert app.log[:2] == ["r1", "p1"]
    assert app.log.index("r3") < app.log.index("p3")
    assert app.log[6:8] == ["r4", "p4"]
    assert app.log[-1] == "p6"
    assert {job["workflow_run_id"] for job in there.jobs} == {run_id}
    assert {(job["queue"], job["retry"], job["tags"][0]) for job in there.jobs} == {("ruby", 3, "x")}
    assert app.dead() == []


def test_ruby_starts_a_run(app: App) -> None:
    """A job that Ruby pushes outright runs here, too, as does a run that it starts."""
    with app.ruby() as there, app.working():
        there.push({"__type__": "job", "class": "step", "args": ["alone"]}, (), None)
        tree = [{"__type__": "job", "class": "step", "args": [name]} for name in "ab"]
        there.push({"__type__": "chain", "children": tree}, (), "run")
        eventually(lambda: {"alone", "a", "b"} <= set(app.log))
    assert app.log.index("a") < app.log.index("b")


class Ids(dramatiq.Middleware):
    """Which ids the steps have, by their argument."""

    def __init__(self) -> None:
        self.seen: dict[Any, set[str]] = {}

    def after_enqueue(self, broker: Any, message: Any, delay: Any) -> None:
        self.seen.setdefault(message.args[0], set()).add(message.message_id)


def test_a_step_has_the_id_of_its_message(app: App) -> None:
    ids = Ids()
    app.broker.add_middleware(ids)
    messages = {name: app.step.message(name) for name in "abcd"}
    run(app, Chain(messages["a"], Group(messages["b"], messages["c"]), messages["d"]), "d")
    assert ids.seen == {name: {message.message_id} for name, message in messages.items()}


def test_a_run_that_another_process_starts_again_makes_the_same_steps(app: App) -> None:
    """The first one died before it could note that the steps are enqueued: here, that note is taken away."""
    ids = Ids()
    app.broker.add_middleware(ids)

    def start() -> None:
        tree = Chain(Group(app.step.message("a"), app.step.message("b")), app.step.message("c"))
        Workflow(tree, broker=app.broker).run("run-1")

    start()
    app.client.set("swf:run:run-1", "1", ex=900)
    start()
    assert {name: len(of_step) for name, of_step in ids.seen.items()} == {"a": 1, "b": 1}
    with app.working():
        eventually(lambda: "c" in app.log)
        eventually(app.settled)
    assert len(ids.seen["c"]) == 1
