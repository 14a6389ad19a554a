"""The corpus of bad input, and a Ruby worker with the companion: good jobs are done, and nothing is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop.tests.companions import installed, worker
from interop.tests.processes import Site
from tests.corpus import judge, loader
from tests.redis_values import raws

#: Lines in the log for each member: its backtrace, once.
MAX_LINES = 50

#: Characters of a line.
MAX_LENGTH = 2000

#: The two lines in which Sidekiq's error handler shows a whole job, and the message of its error.
SHOWS_ALL = re.compile(r'\{"context"|"jobstr"|WARN: [\w:]+: ')

MEMBERS = loader.members()
RUNNER: loader.Runner = "companion 8" if os.environ.get("INTEROP_SIDEKIQ") == "8" else "companion"
KEYS = loader.wrong_keys(RUNNER)


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
    own = {
        b"processes",
        b"swf:workers",
        *(key for key in raws(client.keys("*")) if b":" in key and is_own(client, key)),
    }
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
    # Without the class that Sidekiq puts before each line of a job.
    ours = [re.sub(r"class=\S+", "", line) for line in lines if not SHOWS_ALL.search(line)]
    assert max(map(len, ours), default=0) < MAX_LENGTH, max(ours, key=len)[:4000]


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


def test_what_is_wrapped_can_be_pressed_again(empty: Site) -> None:
    """The pages show it; retried, it is in ``dead`` again, with the same bytes in it."""
    client = empty.client
    judge.put(client, "queue", MEMBERS)
    judge.settle(client, RUNNER, "queue", MEMBERS, eventually(empty))
    assert judge.unreadable(client) == []
    for _ in range(2):
        pressed = judge.press_wrapped(client)
        assert len(pressed) > 5
        empty.eventually(lambda: set(judge.wrapped(client)) == pressed, "the wrapped jobs, in dead again")  # noqa: B023
    assert judge.unreadable(client) == []


@pytest.mark.parametrize("wrong", KEYS, ids=lambda wrong: wrong.name)
def test_a_key_of_another_type(empty: Site, wrong: loader.WrongKey) -> None:
    client, log = empty.client, empty.workers[0].log
    name = judge.make(client, wrong)
    judge.send_good(client, without=name)
    try:
        empty.eventually(lambda: judge.times_done(client) == judge.BESIDE[wrong.works], f"{wrong.works} beside it", 20)
        empty.eventually(lambda: judge.due_are_there(client, wrong), wrong.due, 20)
        # It says so once in a minute: also where the test before made the key another type.
        empty.eventually(lambda: wrong.logs in log.read_text(errors="replace"), f"a line with {wrong.logs!r}", 10)
        assert judge.is_kept(client, wrong, name) == (wrong.effect == "kept")
    finally:
        client.delete(name)
    judge.send_good(client, only=name)
    if wrong.due != "runs":
        judge.cure(client, ())
    empty.eventually(lambda: judge.times_done(client) == [1] * judge.GOOD, "all of them once it is removed", 20)
    client.delete(judge.RAN)
    judge.send_good(client)
    empty.eventually(lambda: judge.times_done(client) == [1] * judge.GOOD, "twenty more", 20)
