"""Building a tree of steps of both languages, and starting it from either."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from dramatiq_sidekiq_flow import Catch, Chain, Group, Job, MayFail, SidekiqBroker, WithDelay, Workflow
from dramatiq_sidekiq_flow.wire.nodes import Wire, carry, dump, dump_job
from interop.tests.actors import is_constant
from interop.tests.processes import Site, ruby

LANGUAGES = ("ruby", "python")

#: An actor that Ruby has no constant for.
CARRIED = "docs.step without a Ruby name"


def step(language: str, *args: Any) -> Job:
    """A step of one of the languages; see ``Interop::Behaviour`` for its last argument."""
    return Job("Rb::Step" if language == "ruby" else "Py::Step", *args)


def rb(*args: Any) -> Job:
    return step("ruby", *args)


def py(*args: Any) -> Job:
    return step("python", *args)


def start(site: Site, broker: SidekiqBroker, language: str, node: Any) -> str:
    """Start a workflow from a language; the run id."""
    if language == "python":
        return Workflow(as_messages(broker, node), broker).run()
    return start_in_ruby(site, broker, [node])[0]


def start_in_ruby(
    site: Site,
    broker: SidekiqBroker,
    nodes: Sequence[Any],
    options: Sequence[Mapping[str, Any]] = (),
    environment: Mapping[str, Any] | None = None,
) -> list[str]:
    """Start several from one Ruby program; their run ids.

    Parameters:
      options: Of each, those of ``SidekiqFlow.run``, which needs the companion; a node is a job.
      environment: Of a program that loads the companion (``companions.installed``).
    """
    requests: list[dict[str, Any]] = [{"tree": as_ruby(broker, node), "run_id": str(uuid.uuid4())} for node in nodes]
    for request, given in zip(requests, options):
        given = {name: as_ruby(broker, value) if isinstance(value, Job) else value for name, value in given.items()}
        request["options"] = given
    answers = json.loads(ruby(site.url, "start.rb", stdin=json.dumps(requests), **(environment or {})))
    assert answers == [{"run_id": request["run_id"]} for request in requests]
    return [answer["run_id"] for answer in answers]


def as_messages(broker: SidekiqBroker, node: Any) -> Any:
    """The tree as a Python application writes it: its own actors are messages."""
    if isinstance(node, WithDelay):
        return WithDelay(as_messages(broker, node.task), delay=node.delay)
    if isinstance(node, (Chain, Group)):
        return type(node)(*(as_messages(broker, child) for child in node.children))
    if isinstance(node, MayFail):
        return MayFail(as_messages(broker, node.step))
    if isinstance(node, Catch):
        return Catch(as_messages(broker, node.step), as_messages(broker, node.fallback))
    if node.job_class not in broker.actors:
        return node
    return broker.get_actor(node.job_class).message_with_options(args=node.args, **node.options)


def as_ruby(broker: SidekiqBroker, node: Any) -> Wire:
    """The tree as Ruby serializes it: jobs hold what was said of them.

    A step that Ruby has no constant for is written as its carrier.
    """

    def leaf(job: Any) -> Wire:
        if is_constant(job.job_class):
            return dump_job(job)
        return carry({**(broker.options_of(job.job_class) or {}), **dump_job(job)})

    return dump(node, leaf)


def languages(site: Site, run_id: str) -> list[str]:
    """The languages of a run's executions, in the order of their ends."""
    return [event["language"] for event in site.events(run_id)]


def chains(site: Site) -> set[bytes]:
    """The keys of the stored chains."""
    return set(site.client.scan_iter("swf:callbacks:*"))


def finished(site: Site, run_id: str, count: int) -> list[dict[str, Any]]:
    """Wait until a run has done so many steps, each once; their events."""
    site.eventually(lambda: len(site.events(run_id)) >= count, f"{count} steps of run {run_id}")
    events = site.events(run_id)
    assert [event["outcome"] for event in events] == ["done"] * count
    assert len({event["jid"] for event in events}) == count
    return events
