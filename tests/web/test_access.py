"""Who may see the pages, and steer runs."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
import redis
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from dramatiq_sidekiq_flow.web import RunsApp

from ..recorded_runs import RecordedRun, chain, job
from .site import Page, broker_of, browser

ADDRESSES = ("/", "/runs/small", "/events/list", "/events/runs/small", "/static/runs.js", "/nothing")


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"address": "10.0.0.7"}, 403),
        ({"address": "testclient"}, 403),
        # The name of another site, which leads to this machine.
        ({"site": "http://evil.example"}, 421),
        ({"site": "http://localhost.evil.example"}, 421),
        ({"hosts": ["runs.example"]}, 421),
        ({"authorize": lambda _: False}, 403),
        ({"authorize": lambda _: "yes"}, 403),
        ({"credentials": ("ops", "secret")}, 401),
        ({"credentials": ("ops", "secret"), "authorize": lambda _: True}, 401),
    ],
)
def test_a_stranger_sees_nothing(redis_url: str, options: dict[str, Any], status: int) -> None:
    web = browser(redis_url, **options)
    for address in ADDRESSES:
        answer = web.get(address)
        assert answer.status_code == status
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert web.post("/actions/cancel/small").status_code == status


def test_a_proxy_of_this_machine_does_not_make_all_the_world_local(redis_url: str) -> None:
    web = browser(redis_url)
    assert web.get("/", headers={"x-forwarded-for": "10.0.0.7"}).status_code == 403
    assert web.get("/", headers={"forwarded": "for=10.0.0.7"}).status_code == 403
    app = RunsApp(broker_of(redis_url))

    async def of_nginx(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "http_version": "1.0"}, receive, send)

    assert TestClient(of_nginx, "http://localhost", client=("127.0.0.1", 5000)).get("/").status_code == 403


async def _allowed(request: HTTPConnection) -> bool:
    return request.headers.get("x-user") == "ops"


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({"site": "http://127.0.0.1:8000"}, {}),
        ({"address": "::1"}, {"host": "[::1]:8000"}),
        ({"authorize": _allowed, "address": "10.0.0.7", "site": "https://runs.example"}, {"x-user": "ops"}),
        ({"credentials": ("ops", "s:é"), "address": "10.0.0.7", "site": "https://runs.example"}, basic("ops:s:é")),
        ({"hosts": ["Runs.Example"], "authorize": lambda _: True, "site": "https://runs.example:444"}, {}),
    ],
)
def test_who_may_see_the_pages(redis_url: str, options: dict[str, Any], headers: dict[str, str]) -> None:
    assert browser(redis_url, **options).get("/", headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["ops:wrong", "op:secret", "ops:secret ", ":", "ops"])
def test_a_wrong_password(redis_url: str, header: str) -> None:
    web = browser(redis_url, credentials=("ops", "secret"))
    assert web.get("/", headers=basic(header)).status_code == 401
    assert web.get("/", headers={"authorization": "Basic ops:secret"}).status_code == 401
    assert web.get("/", headers={"authorization": "Bearer secret"}).status_code == 401
    assert web.get("/", headers=basic("ops:secret")).status_code == 200


def test_the_password_is_not_shown(redis_url: str) -> None:
    app = RunsApp(broker_of(redis_url), credentials=("ops", "secret"))
    assert "secret" not in repr(vars(app))


# -- forms ----------------------------------------------------------------------------


@pytest.fixture
def waiting(client: redis.Redis) -> RecordedRun:
    """A run with a job in a queue."""
    run = RecordedRun(client, "a/b c", chain(job("one"), job("two")))
    run.queued(1)
    return run


def state(client: redis.Redis, run: RecordedRun) -> bytes:
    found: Any = client.hget(f"swf:flow:{run.id}", "state")
    assert isinstance(found, bytes)
    return found


def button(page: Page, action: str) -> str:
    """The address of a button."""
    addresses = [str(each["formaction"]) for each in page.all("button", form="act")]
    (found,) = (address for address in addresses if f"/actions/{action}/" in address)
    return found


def test_buttons_pause_and_resume(client: redis.Redis, redis_url: str, waiting: RecordedRun) -> None:
    web = browser(redis_url)
    address = "/runs/a%2Fb%20c"
    for action, before, after in (("pause", b"running", b"paused"), ("resume", b"paused", b"running")):
        assert state(client, waiting) == before
        page = Page(web.get(address))
        form = {"csrf": str(page.one("input", type="hidden")["value"])}
        assert web.post(button(page, action), data=form).status_code == 303
        assert state(client, waiting) == after
    assert client.llen("queue:python") == 1


def test_a_button_retries(client: redis.Redis, redis_url: str) -> None:
    run = RecordedRun(client, "dead", chain(job("one"), job("two")), state="failed")
    run.dead(1, time.time())
    web = browser(redis_url)
    page = Page(web.get("/runs/dead"))
    form = {"csrf": str(page.one("input", type="hidden")["value"])}
    assert web.post(button(page, "retry"), data=form).status_code == 303
    assert (client.zcard("dead"), client.llen("queue:python")) == (0, 1)


def test_a_button_cancels(client: redis.Redis, redis_url: str, waiting: RecordedRun) -> None:
    web = browser(redis_url)
    answer = web.get("/runs/a%2Fb%20c")
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/"))
    page = Page(answer)
    address = button(page, "cancel")
    token = str(page.one("input", type="hidden")["value"])
    headers = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    done = web.post(address, data={"csrf": token, "reason": "no <b>need</b>"}, headers=headers)
    assert (done.status_code, done.headers["location"]) == (303, "/runs/a%2Fb%20c")
    assert state(client, waiting) == b"cancelled"
    page = Page(web.get(done.headers["location"]))
    assert "no <b>need</b>" in page.text
    assert not page.all("button")


@pytest.mark.parametrize(
    ("token", "headers"),
    [
        (None, {}),
        ("x" * 43, {}),
        ("", {}),
        ("good", {"sec-fetch-site": "cross-site"}),
        ("good", {"sec-fetch-site": "same-site"}),
        ("good", {"origin": "http://evil.example"}),
        ("good", {"origin": "null"}),
    ],
)
def test_another_site_cannot_press_it(
    client: redis.Redis, redis_url: str, waiting: RecordedRun, token: str | None, headers: dict[str, str]
) -> None:
    web = browser(redis_url)
    page = Page(web.get("/runs/a%2Fb%20c"))
    address = button(page, "cancel")
    form = {} if token is None else {"csrf": token}
    if token == "good":
        form["csrf"] = str(page.one("input", type="hidden")["value"])
    assert web.post(address, data=form, headers=headers).status_code == 403
    web.cookies.clear()
    assert web.post(address, data=form).status_code == 403
    assert web.get(address).status_code == 405
    assert state(client, waiting) == b"running"


def test_a_long_form_is_not_read(redis_url: str, waiting: RecordedRun) -> None:
    assert browser(redis_url).post("/actions/cancel/a/b c", data={"reason": "x" * 20_000}).status_code == 413


def test_a_reader_has_no_buttons(client: redis.Redis, redis_url: str, waiting: RecordedRun) -> None:
    web = browser(redis_url, read_only=True)
    page = Page(web.get("/runs/a%2Fb%20c"))
    assert not page.all("button")
    token = str(page.one("input", type="hidden")["value"])
    assert web.post("/actions/cancel/a%2Fb%20c", data={"csrf": token}).status_code == 404
    assert state(client, waiting) == b"running"


def test_below_a_prefix_all_addresses_have_it(redis_url: str, waiting: RecordedRun) -> None:
    host = Starlette(routes=[Mount("/in/here", RunsApp(broker_of(redis_url), authorize=lambda _: True))])
    for root_path, prefix in (("", "/in/here"), ("/of/proxy", "/of/proxy/in/here")):
        web = TestClient(host, follow_redirects=False, root_path=root_path)
        answer = web.get(f"{prefix}/runs/a%2Fb%20c")
        assert answer.status_code == 200, answer.text
        assert f"Path={prefix};" in answer.headers["set-cookie"]
        page = Page(answer)
        names = ("href", "src", "action", "formaction")
        addresses = [each[name] for _, each in page.elements for name in names if name in each]
        strange = [each for each in addresses if each and each[0] == "/" and not each.startswith(f"{prefix}/")]
        assert len(addresses) > 8
        assert strange == []
        assert str(page.one("p", id="live")["data-events"]).startswith(f"{prefix}/events/")
