"""What others may push, and what may lie about in Redis: a Ruby worker with the companion goes on."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.wire.payload import fingerprint
from interop.tests.companions import installed, worker
from interop.tests.processes import Site, ruby
from tests.redis_values import raws
from tests.running import in_flight


def job(jid: str, /, **changes: Any) -> bytes:
    fields = {"class": "Rb::Step", "args": [], "jid": jid, "queue": "ruby", "retry": True, **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


@pytest.fixture(scope="module")
def site(server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("bad")
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/3", folder, ())
    try:
        with installed(folder, "steps.rb") as environment:
            worker(site, **environment)
            yield site
            site.stop()
    finally:
        site.close()


def dead(site: Site) -> list[dict[str, Any]]:
    return [json.loads(member) for member in raws(site.client.zrange("dead", 0, -1))]


def good(site: Site) -> None:
    """A good job is done."""
    name = uuid.uuid4().hex
    site.client.lpush("queue:ruby", job(name, args=[name]))
    done(site, name)


def done(site: Site, name: str) -> None:
    site.eventually(lambda: any(e["args"] == [name] for e in site.events()), "the good job", 20)


def test_a_set_or_queue_of_another_type(site: Site) -> None:
    """Nothing is lost, nothing turns in circles, and the others go on."""
    log = site.workers[0].log
    lines = len(log.read_text().splitlines())
    began = time.monotonic()
    fine = uuid.uuid4().hex
    site.client.set("dead", "text")
    site.client.set("schedule", "text")
    site.client.set("queue:odd", "text")
    bad = {b"%d no JSON" % n: n for n in range(250)}
    site.client.zadd("retry", {**bad, job("to odd", queue="odd"): 1, job(fine, args=[fine]): 300})
    done(site, fine)
    assert site.client.zcard("retry") == 251
    site.client.lpush("queue:ruby", b"no JSON either")
    site.eventually(lambda: in_flight(site.client) == [b"no JSON either"], "left in flight", 20)
    good(site)
    assert len(log.read_text().splitlines()) - lines < 50 * (time.monotonic() - began + 1)
    site.client.delete("dead", "schedule", "queue:odd")
    site.eventually(lambda: site.client.zcard("retry") == 0, "all of them in dead", 30)
    assert len(dead(site)) == 250
    assert site.client.llen("queue:odd") == 1
    site.client.delete("dead", "queue:odd")


def test_in_flight_and_among_the_workers(site: Site) -> None:
    """One bad record stops no recovery."""
    client, fine = site.client, uuid.uuid4().hex
    client.set("queue:string", "text")
    client.set("swf:inflight:gone:1:string:ruby", "text")
    client.hset("swf:inflight:gone:2:noqueue:string", "1:1", job("x"))
    client.hset("swf:inflight:gone:3:fine:ruby", mapping={b"\xff\xfe": b"no JSON", "2:1": job(fine, args=[fine])})
    names = [b"\xff\xfe", b"nocolons", b"a:b", b"gone:1:string:ruby", b"gone:2:noqueue:string"]
    client.zadd("swf:workers", {name: n for n, name in enumerate(names)})
    # After those, and after the sixteen that one beat speaks of.
    client.zadd("swf:workers", {f"junk{n}": 10 + n for n in range(20)})
    client.zadd("swf:workers", {"gone:3:fine:ruby": 100})
    done(site, fine)
    site.eventually(lambda: len(dead(site)) == 1, "the bad one in dead", 20)
    assert dead(site)[0]["jid"] == fingerprint(b"no JSON")
    site.eventually(lambda: client.zscore("swf:workers", "gone:3:fine:ruby") is None, "its end", 20)
    # What cannot be put back is there still.
    assert client.hlen("swf:inflight:gone:2:noqueue:string") == 1
    good(site)
    left = "gone:2:noqueue:string is dead, and its jobs cannot be put back"
    assert site.workers[0].log.read_text().count(left) == 1
    client.delete("queue:string")
    site.eventually(lambda: client.llen("queue:string") == 1, "its job", 20)
    client.delete("queue:string", "swf:inflight:gone:1:string:ruby", "dead")


def test_what_an_error_of_redis_speaks_of(site: Site) -> None:
    """Also in the words of versions that are not here."""
    script = "ERR Error running script (call to f_6b1b): @user_script:12: "
    server = [
        "READONLY You can't write against a read only replica.",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "MISCONF Redis is configured to save RDB snapshots, but cannot. script: 6b1b, on @user_script:3.",
        "OOM command not allowed when used memory > 'maxmemory'. script: 6b1b, on @user_script:1.",
        script + "-OOM command not allowed when used memory > 'maxmemory'.",
        script + "@user_script: 12: -NOREPLICAS Not enough good replicas to write.",
        script + "MISCONF Errors writing to the AOF file",
        "EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas to write.",
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "ERR The user executing the script can't run this command or subcommand script: 6b1b, on @user_script:1.",
        "ERR max number of clients reached",
        "LOADING Redis is loading the dataset in memory",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "UNBLOCKED force unblock from blocking operation",
        "NOAUTH Authentication required.",
        "CLUSTERDOWN The cluster is down",
    ]
    command = [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        script + "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR value is not an integer or out of range",
        "ERR wrong number of arguments for 'hdel' command",
        "BUSYKEY Target key name already exists.",
        "ERR unknown command 'OOM'",
    ]
    code = (
        "errors = JSON.parse($stdin.read).map { |text| RedisClient::CommandError.parse(text) };"
        "puts JSON.generate(errors.map { |error| SidekiqFlow::Companion::Trouble.passes?(error) })"
    )
    with installed(site.logs) as environment:
        text = json.dumps([*server, *command])
        answer = json.loads(ruby(site.url, "-r./setup", "-rjson", "-e", code, stdin=text, **environment))
    assert answer == [True] * len(server) + [False] * len(command)
