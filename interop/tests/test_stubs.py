"""What each language writes down for the other, read by the other."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import redis

from dramatiq_sidekiq_flow import Job, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.registry.registry import Entry, actors
from dramatiq_sidekiq_flow.registry.stubs import ruby as stubs_for_ruby
from interop.tests.actors import build
from interop.tests.processes import RUN

REGISTRY = Path(__file__).parents[2] / "dramatiq_sidekiq_flow" / "ruby" / "sidekiq_flow_registry.rb"


def in_ruby(url: str, folder: Path, code: str, more: dict[str, str]) -> str:
    """Run Ruby with a folder of files at /interop/extra."""

    environment = {**os.environ, "REDIS_URL": url, "INTEROP_EXTRA": str(folder), **more}
    done = subprocess.run(
        [str(RUN), "ruby", "-r./setup", "-e", code], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_stubs_are_sidekiq_jobs_that_refuse_to_run(server: EmbeddedServer, container: None, tmp_path: Path) -> None:
    broker = build("redis://127.0.0.1:1/0")
    entries = {**actors(broker), "Deep::Er::Odd": Entry("Deep::Er::Odd", {"queue": "q#{1 + 1}", "retry": False})}
    (tmp_path / "stubs.rb").write_text(stubs_for_ruby(entries), "utf-8")
    code = """
      seen = %w[Py::Step Py::DeadAtOnce Deep::Er::Odd].to_h do |name|
        klass = Object.const_get(name)
        raised = begin; klass.new.perform(1, 2); nil; rescue NotImplementedError => e; e.message; end
        [name, [klass.get_sidekiq_options, raised]]
      end
      puts JSON.generate(seen)
    """
    seen = json.loads(in_ruby(server.url, tmp_path, code, {"INTEROP_REQUIRE": "/interop/extra/stubs.rb"}))
    assert seen["Py::Step"][0] == {"queue": "python", "retry": 3}
    assert seen["Py::DeadAtOnce"][0] == {"queue": "python", "retry": 0}
    assert seen["Deep::Er::Odd"][0] == {"queue": "q#{1 + 1}", "retry": False}
    assert all("runs in Python" in raised for _, raised in seen.values())


def test_python_advances_onto_a_ruby_class_with_its_own_options(
    server: EmbeddedServer, container: None, tmp_path: Path
) -> None:
    """Published by Ruby, read by Python: `sidekiq_options queue: "critical", retry: 3`."""
    url = f"{server.url.rstrip('/').removesuffix('/0')}/6"
    client = redis.Redis.from_url(url)
    client.flushdb()
    (tmp_path / "registry.rb").write_text(REGISTRY.read_text("utf-8"), "utf-8")
    code = """
      class Shop::Fetch; include Sidekiq::Job; sidekiq_options queue: "critical", retry: 3; end
      SidekiqFlow::Registry.publish
      puts JSON.generate(SidekiqFlow::Registry.entries([Shop::Fetch]))
    """
    code = "module Shop; end\n" + code
    told = json.loads(in_ruby(url, tmp_path, code, {"INTEROP_REQUIRE": "/interop/extra/registry.rb"}))
    assert told == {"Shop::Fetch": {"queue": "critical", "retry": 3}}
    assert 0 < client.ttl("swf:registry:ruby") <= 3 * 86_400
    broker = SidekiqBroker(url=url)
    broker.add_middleware(WorkflowMiddleware())
    Workflow(Job("Shop::Fetch", 7), broker=broker).run()
    (raw,) = client.lrange("queue:critical", 0, -1)
    job = json.loads(raw)
    assert (job["queue"], job["retry"]) == ("critical", 3)
    broker.close()
