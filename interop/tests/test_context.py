"""Tenant and locale go from step to step, through both languages."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests.companions import installed, worker
from interop.tests.processes import Site
from tests.redis_values import as_text

TENANT = {"apartment": "acme", "acts_as_tenant": {"class": "Account", "id": 7}}


def site_of(server: EmbeddedServer, folder: Any, database: int) -> Site:
    return Site(f"{server.url.rstrip('/').removesuffix('/0')}/{database}", folder, ())


@pytest.fixture(scope="module")
def both(server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With the companion.  Look at your own run only."""
    folder = tmp_path_factory.mktemp("context")
    site = site_of(server, folder, 8)
    try:
        with installed(folder, "steps.rb", "context.rb", "inherit.rb") as environment:
            worker(site, **environment)
            site.python_worker()
            yield site
            site.stop()
    finally:
        site.close()


def tenant(name: str, *more: Any, **options: Any) -> Job:
    return Job("Rb::Tenant", name, *more, queue="ruby", **options)


def seen(site: Site, name: str) -> dict[str, Any]:
    """The tenant of each step of that run."""
    lines = map(json.loads, site.client.lrange("tenants", 0, -1))
    return {step: tenants for (run, step), tenants in ((line[0].split("/"), line[1]) for line in lines) if run == name}


def test_the_client_middleware_sees_the_tenant(both: Site, broker: SidekiqBroker) -> None:
    """What follows is worked out inside of the application's middleware, by a chain and by a group."""
    name = uuid.uuid4().hex
    first = tenant(f"{name}/1", **TENANT)
    group = Group(tenant(f"{name}/2a", **TENANT), Group(tenant(f"{name}/2b", **TENANT)))
    run_id = Workflow(Chain(first, group, tenant(f"{name}/3"), Job("Rb::Step", queue="nobody")), broker).run()
    both.eventually(lambda: both.client.llen("queue:nobody"), "the last job", 20)
    assert seen(both, name) == dict.fromkeys(["1", "2a", "2b", "3"], TENANT)
    [last] = map(json.loads, both.client.lrange("queue:nobody", 0, -1))
    both.client.delete("queue:nobody")
    assert last["workflow_run_id"] == run_id
    # Not handed on as a key: it says where the client middleware stood.
    assert last["inside"] == "acme"
    assert {key: last[key] for key in TENANT} == TENANT


def test_what_follows_is_sent_when_all_middleware_has_ended(both: Site, broker: SidekiqBroker) -> None:
    name = uuid.uuid4().hex
    before = both.client.llen("commits")
    run_id = Workflow(Chain(tenant(f"{name}/1", slow_commit=True), Job("Rb::Step", queue="ruby")), broker).run()
    both.eventually(lambda: both.events(run_id)[-1:] and both.events(run_id)[-1]["class"] == "Rb::Step", "the end", 20)
    [_, start] = as_text(both.client.lindex("commits", before)).split(" ")
    assert both.events(run_id)[-1]["start"] >= float(start)


def test_other_keys_are_handed_on_where_that_is_said(both: Site, broker: SidekiqBroker) -> None:
    name = uuid.uuid4().hex
    given = {"cattr": {"a": 1}, "tz": "Asia/Tokyo", "x-datadog-trace-id": "5", "shard": 3, "own-a": 1, "mine": 1}
    Workflow(Chain(tenant(f"{name}/1", **given), Job("Rb::Step", queue="nobody")), broker).run()
    both.eventually(lambda: both.client.llen("queue:nobody"), "the last job", 20)
    [last] = map(json.loads, both.client.lrange("queue:nobody", 0, -1))
    both.client.delete("queue:nobody")
    assert {key: last.get(key) for key in given} == {**given, "mine": None}


@pytest.fixture
def plain(server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("plain")
    site = site_of(server, folder, 9)
    try:
        with installed(folder, "steps.rb", "context.rb") as environment:
            worker(site, INTEROP_COMPANION="0", INTEROP_PYTHON_CLASSES="Py::Step", **environment)
            site.python_worker()
            yield site
            site.stop()
    finally:
        site.close()


@pytest.mark.parametrize("which", ["both", "plain"])
def test_four_steps_have_their_tenant(request: pytest.FixtureRequest, which: str) -> None:
    """Ruby, Ruby, Python, Ruby; with the companion and with the gem alone."""
    from interop.tests.actors import build

    site: Site = request.getfixturevalue(which)
    broker = build(site.url)
    name = uuid.uuid4().hex
    steps = [tenant(f"{name}/1", **TENANT), tenant(f"{name}/2"), Job("Py::Step", queue="python"), tenant(f"{name}/4")]
    run_id = Workflow(Chain(*steps), broker).run()
    site.eventually(lambda: "4" in seen(site, name), f"the last step of {run_id}", 30)
    assert seen(site, name) == dict.fromkeys(["1", "2", "4"], TENANT)
    broker.close()
