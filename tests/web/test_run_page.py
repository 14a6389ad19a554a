"""The page of one run: its parts, steps by state and page, and untrusted texts."""

from __future__ import annotations

import json
import time

import redis

from ..recorded_runs import RecordedRun, chain, group, job
from .site import Page, browser, small_run

EVIL = """<script>alert(1)</script><img src=x onerror="alert(2)">' onload='alert(3)"""


def test_all_parts_of_a_run(client: redis.Redis, redis_url: str) -> None:
    run = small_run(client, state="failed", template="nightly", tags=["eu"])
    client.hset(f"swf:mem:{run.id}", mapping={"text": json.dumps("x" * 500), "words": "[1, 2, 3]"})
    page = Page(browser(redis_url).get("/runs/small"))
    parts = ["problem", "state", "head", "actions", "failures", "explanation"]
    parts += ["graph", "timeline", "memory", "steps"]
    assert [each["id"] for _, each in page.elements if "data-digest" in each] == parts
    assert [each["aria-label"] for each in page.all("a") if "aria-label" in each] == [
        "fetch, Python, python: done",
        "extract, Python, python: queued",
        "Docs::Thumb, Ruby, ruby: dead",
        "store, Python, python: pending",
    ]
    assert [each["id"] for each in page.all("tr") if "id" in each] == [f"step-{number}" for number in (1, 2, 3, 4)]
    for text in ("failed", "1 of 4", "IOError: no disk\nTraceback: ...", "host:1:abc", "[1, 2, 3]", "nightly", "#eu"):
        assert text in page.text
    assert "x" * 61 not in page.text


def test_a_run_that_does_not_go_on_says_why(client: redis.Redis, redis_url: str) -> None:
    run = RecordedRun(client, "dead", chain(job("one"), job("two")), state="failed")
    run.dead(1, time.time())
    page = Page(browser(redis_url).get("/runs/dead"))
    assert "Why it does not go on" in page.text
    assert "runs retry dead" in page.text or "doctor dead" in page.text


def test_nothing_of_a_run_becomes_html(client: redis.Redis, redis_url: str) -> None:
    tree = chain(job(EVIL, EVIL, queue=EVIL), group(*(job(f"{EVIL}2", queue=EVIL) for _ in range(30))))
    run_id = f"{EVIL}/../x"
    run = RecordedRun(client, run_id, tree, template=EVIL, tags=[EVIL], reason=EVIL)
    run.failed(1, EVIL, EVIL)
    run.in_retry(2, time.time() + 50, error_class=EVIL, error_message=EVIL)
    client.hset(f"swf:mem:{run_id}", mapping={EVIL: json.dumps({EVIL: EVIL})})
    client.hset(f"swf:flow:{run_id}", "reason", f"{EVIL}\udcff".encode("utf-8", "surrogateescape"))
    web = browser(redis_url)
    (address,) = Page(web.get("/")).rows()
    pages = [web.get("/"), web.get(address), web.get("/", params={"id": EVIL, "tag": EVIL}), web.get(f"/runs/{EVIL}")]
    assert [answer.status_code for answer in pages] == [200, 200, 200, 404]
    for page in map(Page, pages):
        assert "alert(1)" in page.text or "alert(1)" in str(page.all("input"))
        assert all(each.get("src", "").startswith("/static/") for each in page.all("script"))  # type: ignore[union-attr]
        assert not page.all("img")
        # Nothing that the policy of the page would refuse, either.
        assert not [each for _, each in page.elements if "style" in each or any(name.startswith("on") for name in each)]
        assert "style" not in {name for name, _ in page.elements}


def test_steps_are_shown_a_hundred_at_a_time(client: redis.Redis, redis_url: str) -> None:
    run = RecordedRun(client, "large", group(*(job("part", number) for number in range(10_000))))
    run.done(1)
    pipeline = client.pipeline()
    for number in range(1000, 9991):
        pipeline.setbit("swf:flow:large:done", number, 1)
    pipeline.execute()
    for number in (9992, 9995):
        run.failed(number)
    web = browser(redis_url)
    page = Page(web.get("/runs/large?page=100"))
    assert [each["id"] for each in page.all("tr") if "id" in each] == [f"step-{n}" for n in range(9901, 10_001)]
    assert "9,901 to 10,000 of 10,000 steps" in page.text
    assert "8,992 of 10,000" in page.text
    page = Page(web.get("/runs/large?steps=dead&page=7"))
    assert [each["id"] for each in page.all("tr") if "id" in each] == ["step-9992", "step-9995"]
    # A box leads to the page that has its first step.
    assert "/runs/large?page=100#step-9992" in [each.get("href") for each in page.all("a")]
    for strange in ("page=-1", "page=x", "page=99999999999999999999", "steps=<b>", "steps=nothing"):
        assert web.get(f"/runs/large?{strange}").status_code == 200


def test_a_run_without_a_tree(client: redis.Redis, redis_url: str) -> None:
    run = RecordedRun(client, "adopted", None)
    run.steps = [job("fetch")]
    run.queued(1)
    page = Page(browser(redis_url).get("/runs/adopted"))
    assert "0 of ?" in page.text
    assert "fetch" in page.text
    assert not page.all("svg", **{"class": "graph"})


def test_a_redis_that_is_down_is_said(client: redis.Redis, redis_url: str) -> None:
    answer = browser("redis://:secret@127.0.0.1:1/0").get("/")
    assert answer.status_code == 503
    assert "Redis cannot be read" in answer.text
    assert "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
