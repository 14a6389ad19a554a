"""A queue belongs to one language: beside a plain Ruby worker that serves ``default``."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, WithDelay, Workflow
from dramatiq_sidekiq_flow.errors import QueueShared
from interop.tests.processes import Site
from interop.tests.workflows import rb


@pytest.fixture
def beside_ruby(site: Site) -> Site:
    """Ruby serves default and ruby, Python serves python; both are on the Busy page."""
    site.ruby_worker(queues=("default", "ruby"))
    site.python_worker()
    site.eventually(lambda: site.client.scard("processes") == 2, "both processes")
    return site


def test_a_delayed_empty_node_of_python_steps_goes_on(beside_ruby: Site, broker: SidekiqBroker) -> None:
    """``default`` is declared here, as by any actor without a queue, and served by Ruby, which could not go on."""
    broker.declare_queue("default")
    actor: Any = broker.actors["docs.step without a Ruby name"]
    tree = Chain(actor.message("first"), WithDelay(Group(), 300), actor.message("second"))
    run_id = Workflow(tree, broker).run()

    def steps() -> list[Any]:
        return [event for event in beside_ruby.events(run_id) if event["args"]]  # the empty node has none

    done = beside_ruby.eventually(lambda: len(steps()) == 2 and steps(), "both steps")
    assert [event["args"][0] for event in done] == ["first", "second"]
    assert {event["language"] for event in beside_ruby.events(run_id)} == {"python"}


def test_a_step_that_ruby_would_take_and_skip_is_refused(beside_ruby: Site, broker: SidekiqBroker) -> None:
    @dramatiq.actor(broker=broker, actor_name="somewhere.default")  # on `default`, as Dramatiq has it
    def forgotten(name: str) -> None: ...

    with pytest.raises(QueueShared, match="'default'"):
        Workflow(Chain(rb("first"), forgotten.message("second")), broker).run()
    assert beside_ruby.client.llen("queue:ruby") == beside_ruby.client.llen("queue:default") == 0
    assert beside_ruby.events() == []
