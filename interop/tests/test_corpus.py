"""The corpus of bad input, and a Ruby worker with the companion: good jobs are done, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from companions import installed, worker
from processes import Site

from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from tests.corpus import judge, loader

#: Lines in the log for each member: its backtrace, once.
MAX_LINES = 50

MEMBERS = loader.members()
RUNNER: loader.Runner = "companion 8" if os.environ.get("INTEROP_SIDEKIQ") == "8" else "companion"


@pytest.fixture(scope="module")
def site(server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("corpus")
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/4", folder, ())
    try:
        with installed(folder, "corpus.rb") as environment:
            # What fails is not tried again while a test looks.
            worker(site, loader.QUEUE, INTEROP_RETRY_IN="3600", INTEROP_RECORD="0", **environment)
            yield site
            site.stop()
    finally:
        site.close()


@pytest.fixture
def empty(site: Site) -> Iterator[Site]:
    """The worker, with nothing left of the test before."""
    yield site
    client = site.client
    own = {b"processes", b"swf:workers", *(key for key in client.keys("*") if b":" in key and is_own(client, key))}
    left = [key for key in client.keys("*") if key not in own]
    if left:
        client.delete(*left)


def is_own(client: Any, key: bytes) -> bool:
    """Whether a live process has written it: its record, its work, its jobs in flight."""
    return any(identity in key for identity in client.smembers("processes"))


def eventually(site: Site) -> Callable[..., Any]:
    return lambda condition, what="": site.eventually(condition, what)


@pytest.mark.parametrize("place", loader.PLACES)
def test_each_member_is_where_the_corpus_says(empty: Site, place: str) -> None:
    client, log = empty.client, empty.workers[0].log
    before = len(log.read_text(errors="replace").splitlines())
    if place == "fails":
        client.set(judge.FAIL, 1)
    judge.put(client, place, MEMBERS)
    judge.settle(client, RUNNER, place, MEMBERS, eventually(empty))
    assert judge.differences(client, RUNNER, place, MEMBERS) == []
    lines = log.read_text(errors="replace").splitlines()[before:]
    # Sidekiq shows each job that fails, with its backtrace.
    assert len(lines) < MAX_LINES * len(MEMBERS), lines[-100:]


def test_what_is_mended_goes_on(empty: Site) -> None:
    """A job whose barrier was wrong is in ``dead``: mended and retried there, its run goes on."""
    members = [member for member in MEMBERS if member.cure]
    judge.put(empty.client, "queue", members)
    judge.settle(empty.client, RUNNER, "queue", members, eventually(empty))
    judge.cure(empty.client, members)
    empty.eventually(
        lambda: judge.followed(empty.client, members) == {member.name: 1 for member in members}, "what follows"
    )
    assert not empty.client.zcard("dead")
