"""Jobs that cannot be run: they break no page, and no button."""

from __future__ import annotations

import json
from typing import Any

from interop.web.pages import Pages
from interop.web.scene import Scene


def job(**fields: Any) -> bytes:
    return json.dumps({"class": "Docs::Extract", "args": [], "jid": "b" * 24, "retry": True, **fields}).encode()


#: What others might push, and the error that it gets.
BAD = [
    (b"no JSON <b>at all</b>", "MalformedPayload"),
    (b"\xff\xfe\x00 no UTF-8", "MalformedPayload"),
    (b'{"class": "Docs::Extract", "args": ["\\ud800"], "jid": "1"}', "MalformedPayload"),
    (b'["an array"]', "MalformedPayload"),
    (b"[" * 100_000, "MalformedPayload"),
    (b"{}", "InvalidPayload"),
    (b'{"class": "Docs::Extract", "jid": "2", "queue": "python"}', "InvalidPayload"),
    (job(args={"a": 1}, jid="3"), "InvalidPayload"),
    (job(**{"class": 7}, jid="4"), "InvalidPayload"),
    (job(jid="5", encrypt=True, args=["BAhTOh"]), "UnsupportedPayload"),
    (job(jid="6", workflow_run_id="r", workflow_completion_callbacks="<junk>"), "InvalidCallbacks"),
    (job(jid="7", **{"class": "Sidekiq::ActiveJob::Wrapper"}, args=[{"arguments": 1}]), "InvalidPayload"),
    (job(jid="8", **{"class": "Docs::Unheard"}, retry=0, created_at=None, tags=["a"]), "ActorNotFound"),
    (job(jid="9", **{"class": "Docs::Once"}, args=["fine"], created_at="yesterday", enqueued_at=[]), ""),
]


def test_bad_jobs_break_no_page(empty: Scene, page: Pages) -> None:
    empty.start()
    empty.client.sadd("queues", "python")
    for raw, _ in BAD:
        empty.client.lpush("queue:python", raw)
    wanted = sorted(error for _, error in BAD if error)

    def errors(*more: str) -> list[str]:
        """Of the dead jobs that have these keys, too."""
        return sorted(job["error_class"] for job, _ in empty.members("dead") if all(key in job for key in more))

    empty.eventually(lambda: len(errors()) == len(wanted), "all bad ones in dead")
    assert errors() == wanted
    empty.eventually(lambda: empty.executed("9") == [False], "the good one")
    for job, score in empty.members("dead"):
        page.dead.open_job(f"{score!r}-{job['jid']}")
        assert page.dead.facts()["Error Class"] == job["error_class"]
    page.dead.open()
    page.shot("bad-dead")
    assert len(page.dead.jobs()) == len(wanted)
    # All of them again: they come back to where they were, and nobody stops.
    for job, _ in empty.members("dead"):
        page.dead.tick(job["jid"])
    page.dead.press("retry")
    empty.eventually(lambda: len(errors("retried_at")) == len(wanted), "all of them failed again")
    assert errors() == wanted
    jid = empty.send("Docs::Extract", "after all that")
    empty.eventually(lambda: empty.executed(jid) == [False], "a good job")
    empty.workers[0].check()
    page.dead.open()
    page.busy.open()
    page.metrics.open()
