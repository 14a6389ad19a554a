"""A step made from a message has that message's id, whichever language pushes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, WithDelay, Workflow
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests.actors import build
from interop.tests.companions import companion
from interop.tests.processes import RUN, Site, ruby_environment
from interop.tests.workflows import rb


@pytest.fixture(params=["the gem alone", "with the companion"])
def site(request: pytest.FixtureRequest, server: EmbeddedServer, container: None, tmp_path: Path) -> Iterator[Site]:
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/1", tmp_path, ())
    try:
        if request.param == "the gem alone":
            site.ruby_worker()
        else:
            options = {"INTEROP_POLL": "0.1", "INTEROP_RETRY_IN": "1", "INTEROP_TIMEOUT": "3", "INTEROP_HEARTBEAT": "2"}
            environment = ruby_environment(site.url, **companion(), **options)
            site._start("ruby", [str(RUN), "sidekiq", "-r", "./worker.rb", "-q", "ruby", "-c", "3"], environment)
        site.python_worker()
        yield site
        site.stop()
    finally:
        site.close()


def test_ids_go_through_ruby(site: Site) -> None:
    broker: SidekiqBroker = build(site.url)
    actor: Any = broker.actors["docs.step without a Ruby name"]
    messages = {name: actor.message(name) for name in ("p1", "p2", "p3", "p4")}
    tree = Chain(
        rb("r1"),
        messages["p1"],
        Group(rb("r2"), Chain(rb("r3"), messages["p2"])),
        WithDelay(messages["p3"], 300),
        rb("r4"),
        messages["p4"],
    )
    run_id = Workflow(tree, broker).run()
    site.eventually(lambda: len(site.events(run_id)) == 8, "all steps")
    jids = {event["args"][0]: event["jid"] for event in site.events(run_id)}
    assert {name: jids[name] for name in messages} == {name: m.message_id for name, m in messages.items()}
    assert all(len(jid) == 24 for name, jid in jids.items() if name not in messages)
    broker.close()
