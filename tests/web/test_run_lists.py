"""The list of runs: filters, pages, search."""

from __future__ import annotations

import time

import redis

from ..recorded_runs import RecordedRun, chain, job
from .site import Page, browser, small_run


def many(client: redis.Redis, count: int) -> list[str]:
    """Runs, of which the first one is the newest; their addresses."""
    now = time.time()
    tree = chain(job("one"), job("two"))
    for number in range(count):
        state = ("running", "done")[number % 2]
        tags, template = [f"t{number % 3}"], ("nightly" if number % 4 == 0 else None)
        run_id = f"run-{number:03}"
        RecordedRun(client, run_id, tree, state=state, started=now - number, tags=tags, template=template)
    return [f"/runs/run-{number:03}" for number in range(count)]


def test_pages_follow_each_other(client: redis.Redis, redis_url: str) -> None:
    expected = many(client, 120)
    web = browser(redis_url)
    found, address = [], "/"
    for _ in range(3):
        page = Page(web.get(address))
        found += page.rows()
        following = page.all("a", rel="next")
        address = str(following[0]["href"]) if following else ""
    assert found == expected
    assert address == ""
    assert page.one("a", rel="first")["href"] == "/"


def test_filters(client: redis.Redis, redis_url: str) -> None:
    expected = many(client, 24)
    web = browser(redis_url)
    assert Page(web.get("/?state=done")).rows() == expected[1::2]
    assert Page(web.get("/?template=nightly")).rows() == expected[::4]
    page = Page(web.get("/?state=running&tag=t2&template="))
    assert page.rows() == [each for each in expected[2::3] if each in expected[::2]]
    assert page.one("input", name="tag")["value"] == "t2"
    assert web.get("/?state=stuck").status_code == 400
    assert web.get("/?after=gone").status_code == 404


def test_a_run_is_found_by_its_id_or_by_how_it_begins(client: redis.Redis, redis_url: str) -> None:
    expected = many(client, 30)
    small_run(client, "run-00*")
    web = browser(redis_url)
    answer = web.get("/?id=run-007")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/run-007")
    page = Page(web.get("/?id=run-02"))
    assert page.rows() == expected[20:30]
    # Each look reads all ids.
    assert not page.all("p", id="live")
    assert Page(web.get("/")).all("p", id="live")
    # Not a pattern.
    assert web.get("/?id=run-00*").headers["location"] == "/runs/run-00%2A"
    assert Page(web.get("/?id=run-0[12]")).rows() == []
    assert "No run is like this" in Page(web.get("/?id=nothing")).text


def test_an_expired_run_is_left_out(client: redis.Redis, redis_url: str) -> None:
    expected = many(client, 3)
    client.delete("swf:flow:run-001")
    web = browser(redis_url)
    assert Page(web.get("/")).rows() == [expected[0], expected[2]]
    assert Page(web.get("/?id=run-0")).rows() == [expected[0], expected[2]]


def test_what_is_shown_of_a_run(client: redis.Redis, redis_url: str) -> None:
    small_run(client, "5f0d8c1e-8e0c-4a3f-9d1c-0a8f6f0f8f11", state="failed", tags=["a b&c"], template="x/y")
    page = Page(browser(redis_url).get("/"))
    assert page.one("a", **{"class": "id"})["title"] == "5f0d8c1e-8e0c-4a3f-9d1c-0a8f6f0f8f11"
    assert page.one("progress") | {"max": "4", "value": "1"} == page.one("progress")
    assert "1 of 4" in page.text
    assert "1 dead" in page.text
    assert page.all("a", href="/?tag=a+b%26c")
    assert page.all("a", href="/?template=x%2Fy")
