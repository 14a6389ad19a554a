"""Nodes, and what a workflow of them is started with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs
from typing_extensions import assert_type

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    Job,
    Namespace,
    RubyJob,
    SidekiqBroker,
    Templates,
    WithDelay,
    Workflow,
    restart_remaining,
    template,
    templates,
)

from .actors import Extract, named, plain

broker = SidekiqBroker(url="redis://localhost:6379/0")
Thumbnail = RubyJob("Images::Thumbnail", queue="ruby", retry=3, tags=["images"])

# Nodes.
assert_type(Job("Images::Thumbnail", 200, queue="ruby", retry=False), Job)
assert_type(Thumbnail(200, queue="other"), Job)
assert_type(Thumbnail.options, dict[str, Any])
assert_type(Chain(plain.message("42"), Thumbnail(200)), Chain)
assert_type(Group(plain.message("42"), named.message(), Chain()), Group)
assert_type(Group(*(plain.message(str(n)) for n in range(10))), Group)
assert_type(WithDelay(Thumbnail(200), 500), WithDelay)
assert_type(WithDelay(Group(), 250.5), WithDelay)
assert_type(WithDelay(plain.message("42"), timedelta(minutes=5)), WithDelay)
assert_type(Namespace("left", Thumbnail(200)), Namespace)

# Runs.
assert_type(Workflow(Chain()).run(), str)
assert_type(Workflow(plain.message("42")).run("daily-42"), str)
assert_type(Workflow(named.message(), broker).run(), str)
assert_type(Workflow(Thumbnail(200), broker=broker, seed={"size": 200}).run(), str)
assert_type(Workflow(Group()).start(seed={"size": 200}), str)
assert_type(Workflow(Namespace("left", Thumbnail(200))).walk(), Iterator[Any])
assert_type(restart_remaining(broker, "jid", members=2), str)


# Templates.
@attrs.frozen
class Params:
    doc_id: str


@template("index", input=Params, defaults="config/index.yml")
def index(params: Params) -> Chain:
    return Chain(plain.message(params.doc_id), named.message(Extract(params.doc_id)))


@template("nightly", defaults={"size": 200})
def nightly() -> Workflow:
    return Workflow(Thumbnail(200))


# A builder stays what it is.
assert_type(index(Params("42")), Chain)
assert_type(nightly(), Workflow)
assert_type(templates, Templates)
assert_type(templates.run("index", Params("42")), str)
assert_type(templates.run("index", {"doc_id": "42"}, run_id="daily-42", broker=broker), str)
assert_type(templates.build("nightly"), Workflow)
assert_type(templates.names(), list[str])
assert_type(Templates().template("own")(index)(Params("42")), Chain)
