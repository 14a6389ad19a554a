"""Long chains of both languages without a callback storage: Ruby passes references on, and starts whole trees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests import companions
from interop.tests.actors import build
from interop.tests.processes import Site
from interop.tests.workflows import CARRIED, LANGUAGES, chains, finished, py, rb, start

starters = pytest.mark.parametrize("starter", LANGUAGES)

#: An argument that makes steps large.
TEXT = "x" * 200


@pytest.fixture(scope="module", params=["plain gem", "companion"])
def long(
    request: pytest.FixtureRequest, server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A worker of each language, and Ruby has no storage."""
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/4", tmp_path_factory.mktemp("long"), ("Py::Step",))
    try:
        if request.param == "companion":
            environment = {**companions.companion(), "INTEROP_HEARTBEAT": "60", "INTEROP_PYTHON_CLASSES": "Py::Step"}
            companions.worker(site, "ruby", 4, **environment)
        else:
            site.ruby_worker()
        site.python_worker()
        yield site
        site.stop()
    finally:
        site.close()


@pytest.fixture
def broker(long: Site) -> Iterator[SidekiqBroker]:
    broker = build(long.url)
    yield broker
    broker.close()


@starters
@pytest.mark.parametrize("pattern", [(rb, py), (py, rb), (rb, rb, py)])
def test_a_mixed_chain_is_stored_once(long: Site, broker: SidekiqBroker, starter: str, pattern: Any) -> None:
    before = chains(long)
    steps = [pattern[n % len(pattern)](n, TEXT) for n in range(60)]
    run_id = start(long, broker, starter, Chain(*steps))
    events = finished(long, run_id, 60)
    assert [e["args"][0] for e in events] == list(range(60))
    assert len(chains(long) - before) == 1


@starters
def test_groups_and_carriers_between_ruby_steps(long: Site, broker: SidekiqBroker, starter: str) -> None:
    def part(n: int) -> list[Any]:
        member = Chain(rb(n, TEXT), py(n, TEXT))
        return [rb(n, TEXT), Group(py(n, TEXT), member), Group(), Group(rb(n, TEXT), py(n, TEXT)), Job(CARRIED, n)]

    run_id = start(long, broker, starter, Chain(*(step for n in range(12) for step in part(n)), rb("end")))
    events = finished(long, run_id, 12 * 7 + 1)
    order = [e["args"][0] for e in events]
    assert order == [*(n for n in range(12) for _ in range(7)), "end"]
