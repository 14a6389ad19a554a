"""Chains by reference, written and read by both languages: Ruby with the plain gem, and with the companion."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dramatiq_sidekiq_flow import Chain, Group, Job, SidekiqBroker, WithDelay
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests import companions
from interop.tests.actors import build
from interop.tests.processes import RUN, Site, ruby_environment
from interop.tests.workflows import CARRIED, LANGUAGES, as_ruby, chains, finished, py, rb, start
from tests.recordings import without_numbers
from tests.redis_values import fields

FROM = "300"  # bytes: so that the end of each chain travels in the payload
STUBS = "Py::Step,Py::DeadAtOnce,Py::Gate,Py::Echo"

starters = pytest.mark.parametrize("starter", LANGUAGES)


def ruby_with(companion: bool) -> dict[str, str]:
    """For a Ruby program that has the companion file's storage, and the rest of it or not."""
    return {
        **companions.companion(),
        "INTEROP_REFERENCES": FROM,
        "INTEROP_COMPANION": str(int(companion)),
        "INTEROP_POLL": "0.1",
        "INTEROP_RETRY_IN": "1",
        "INTEROP_TIMEOUT": "3",
        "INTEROP_HEARTBEAT": "2",
        "INTEROP_PYTHON_CLASSES": STUBS,
    }


@pytest.fixture(scope="module", params=["plain gem", "companion"])
def storing(
    request: pytest.FixtureRequest,
    server: EmbeddedServer,
    container: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A worker of each language, both of which store by reference."""
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/3", tmp_path_factory.mktemp("storing"), ())
    environment = ruby_with(request.param == "companion")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(
            "interop.tests.processes.ruby_environment", lambda url, **more: {**os.environ, "REDIS_URL": url, **more}
        )
        try:
            worker = ruby_environment(site.url, **environment)
            command = [str(RUN), "sidekiq", "-r", "./worker.rb", "-q", "ruby", "-q", "default", "-c", "3"]
            site._start("ruby", command, worker)
            site.python_worker()
            yield site
            site.stop()
        finally:
            site.close()


@pytest.fixture
def broker(storing: Site) -> Iterator[SidekiqBroker]:
    broker = build(storing.url, references=int(FROM))
    yield broker
    broker.close()


@starters
def test_a_chain_of_both_languages_is_stored_once(storing: Site, broker: SidekiqBroker, starter: str) -> None:
    before = chains(storing)
    steps = [(rb, py)[n % 2](n, {"return": {f"{starter} {n}": [n, "ä"]}}) for n in range(20)]
    run_id = start(storing, broker, starter, Chain(*steps))
    events = finished(storing, run_id, 20)
    assert [e["args"][0] for e in events] == list(range(20))
    assert [e["language"] for e in events] == ["ruby", "python"] * 10
    # An execution is recorded before its output is kept.
    kept = {f"{starter} {n}": [n, "ä"] for n in range(20)}
    storing.eventually(lambda: storing.memory(run_id) == kept, "what all steps returned")
    (chain,) = chains(storing) - before
    assert storing.client.hlen(chain) == 19 + 1
    assert storing.client.ttl(chain) > 21 * 86_400


@starters
def test_groups_delays_and_carriers_by_reference(storing: Site, broker: SidekiqBroker, starter: str) -> None:
    before = chains(storing)
    carried = Job(CARRIED, "carried")
    rest = [WithDelay(rb(n) if n % 2 else py(n), delay=10) for n in range(10, 20)]
    inner = [Chain(*((rb, py)[(n + m) % 2]("inner", m, n) for m in range(12))) for n in range(3)]
    run_id = start(storing, broker, starter, Chain(Group(rb("a"), py("b"), *inner), Group(), carried, *rest))
    events = finished(storing, run_id, 2 + 36 + 1 + 10)
    group = [e["args"] for e in events[:38]]
    for n in range(3):
        assert [args[1] for args in group if args[0] == "inner" and args[2] == n] == list(range(12))
    assert [e["args"][0] for e in events[38:]] == ["carried", *range(10, 20)]
    # The outer rest, with the job that ends a run of Python, and the three inner ones.
    new = chains(storing) - before
    outer = 14 if starter == "python" else 13
    assert sorted(storing.client.hlen(chain) for chain in new) == [12, 12, 12, outer]


def test_both_write_the_same_keys_and_values(storing: Site, broker: SidekiqBroker) -> None:
    """But for the order of a job's keys, which each language has its own of, and the numbers of steps."""
    tree = Chain(*(Job("Rb::Step", f"same {n}", queue="ruby", retry=True) for n in range(9)))
    stored = []
    for starter in LANGUAGES:
        before = chains(storing)
        run_id = start(storing, broker, starter, tree)
        finished(storing, run_id, 9)
        (chain,) = chains(storing) - before
        values = fields(storing.client.hgetall(chain))
        assert int(values.pop("largest")) == max(map(len, values.values()))
        # Behind its last step, a run of Python has the job that ends it.
        length = 9 if starter == "python" else 8
        assert sorted(map(int, values)) == list(range(length))
        links = [values[str(n)].partition(b":") for n in range(length)]
        stored.append([json.loads(text) for _, _, text in links])
        for n, (_, _, text) in enumerate(links):
            assert json.dumps(stored[-1][n], separators=(",", ":")).encode() == text
            # Each value is named by the one before it, and the first by the key.
            name = links[n - 1][0] if n else chain.removeprefix(b"swf:callbacks:")
            assert hashlib.sha256(values[str(n)]).hexdigest().encode() == name
        assert links[-1][0] == b""
        storing.client.delete(chain)
    of_python = stored[LANGUAGES.index("python")]
    assert of_python.pop()["display_class"] == "end of run"
    assert without_numbers(stored[0]) == without_numbers(stored[1]) == as_ruby(broker, tree)["children"][1:]


def test_a_chain_that_is_gone_is_dead_or_retried_and_never_silent(
    storing: Site, broker: SidekiqBroker, request: pytest.FixtureRequest
) -> None:
    """The plain gem looks before it runs the job, the companion too; both name what is missing."""
    missing = {"__type__": "reference", "chain": "0" * 64, "at": 1, "sha": "1" * 64}
    job: dict[str, Any] = {
        "class": "Rb::Step",
        "args": [],
        "jid": "c" * 24,
        "queue": "ruby",
        "retry": 0,
        "created_at": 1.5,
        "workflow_run_id": "7d6a2c88-1111-4222-8333-444455556666",
        "workflow_completion_callbacks": [["7d6a2c88-1111-4222-8333-444455556667", missing, False]],
    }
    storing.client.delete("dead")
    storing.client.lpush("queue:ruby", json.dumps(job))
    storing.eventually(lambda: storing.members("dead", job["workflow_run_id"]), "a dead job")
    (dead,) = storing.members("dead", job["workflow_run_id"])
    assert dead["error_class"].endswith("CallbacksMissing")
    assert "swf:callbacks:000" in dead["error_message"]
    assert dead["workflow_completion_callbacks"] == job["workflow_completion_callbacks"]
    storing.client.delete("dead")


def test_the_companion_reads_references_whatever_storage_the_gem_has(
    server: EmbeddedServer, container: None, tmp_path: Path
) -> None:
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/4", tmp_path, ())
    environment = ruby_with(True)
    del environment["INTEROP_REFERENCES"]
    broker = build(site.url, references=0)
    try:
        command = [str(RUN), "sidekiq", "-r", "./worker.rb", "-q", "ruby", "-c", "3"]
        site._start("ruby", command, ruby_environment(site.url, **environment))
        run_id = start(site, broker, "python", Chain(*(rb(n) for n in range(6))))
        assert len(chains(site)) == 1
        assert [e["args"] for e in finished(site, run_id, 6)] == [[n] for n in range(6)]
        site.stop()
    finally:
        broker.close()
        site.close()


@pytest.mark.parametrize("companion", [False, True], ids=["plain gem", "companion"])
def test_large_trees_go_by_reference_to_python_alone(
    server: EmbeddedServer, container: None, tmp_path: Path, companion: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no storage was chosen, in either language."""
    # The other tests' workers, of this process, have it.
    monkeypatch.delenv("INTEROP_REFERENCES", raising=False)
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/5", tmp_path, ())
    environment = ruby_with(companion)
    del environment["INTEROP_REFERENCES"]
    broker = build(site.url)
    large = "x" * 300_000
    try:
        # No Python worker runs yet, so the first payload is still in its queue.
        inner = Group(rb(large, {}), py("b"), Chain(rb("c"), py("d"), rb("e")))
        tree = Chain(Chain(py("a"), py("a2")), inner, rb("f"), Chain(py("g"), py(large, {})), py("h"))
        run_id = start(site, broker, "python", tree)
        (raw,) = site.client.lrange("queue:python", 0, -1)
        assert len(raw) < 2000
        assert b'"reference"' in raw
        command = [str(RUN), "sidekiq", "-r", "./worker.rb", "-q", "ruby", "-c", "3"]
        site._start("ruby", command, ruby_environment(site.url, **environment))
        site.python_worker()
        events = finished(site, run_id, 11)
        order = ["a", "a2", "f", "g", "h"]
        assert [event["args"][0] for event in events if event["args"][0] in order] == order
        ttls = {chain: site.client.ttl(chain) for chain in chains(site)}
        assert all(0 < ttl <= 86_400 for ttl in ttls.values()), ttls
        assert not site.client.zcard("dead")
        site.stop()
    finally:
        broker.close()
        site.close()
