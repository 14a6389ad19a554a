"""The web pages for tests: a client of the application, and what is on a page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import httpx
import redis
from starlette.testclient import TestClient

from dramatiq_sidekiq_flow import RedisHashMemory, SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.web import RunsApp

from ..recorded_runs import RecordedRun, chain, group, job


def broker_of(url: str) -> SidekiqBroker:
    """A broker that runs workflows."""
    broker = SidekiqBroker(url)
    broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))
    return broker


def browser(url: str, *, address: str = "127.0.0.1", site: str = "http://localhost", **options: Any) -> TestClient:
    """A browser of an application of its own.

    Parameters:
      url: Of the Redis.
      address: Of the browser.
      site: Address of the server, as the browser knows it.
    """
    return TestClient(RunsApp(broker_of(url), **options), site, client=(address, 5000), follow_redirects=False)


def small_run(client: redis.Redis, run_id: str = "small", **fields: Any) -> RecordedRun:
    """A run of four steps: done, queued, dead, pending."""
    tree = chain(job("fetch", 42), group(job("extract"), job("Docs::Thumb", queue="ruby")), job("store"))
    run = RecordedRun(client, run_id, tree, **fields)
    run.done(1)
    run.queued(2)
    run.failed(3, "IOError", "no disk\nTraceback: ...")
    return run


class Page(HTMLParser):
    """What is on a page.

    Attributes:
      elements: Name and attributes of each element.
      text: All that a person reads.
    """

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of the elements of a name that have these attributes."""
        found = [each for name, each in self.elements if name == tag]
        return [each for each in found if all(each.get(name) == value for name, value in attributes.items())]

    def one(self, tag: str, **attributes: str) -> dict[str, str | None]:
        (found,) = self.all(tag, **attributes)
        return found

    def rows(self) -> list[str]:
        """The addresses of the runs of a list."""
        return [str(each["href"]) for each in self.all("a", **{"class": "id"})]
