"""What others may push, and what may lie about in Redis: a Ruby worker with the companion goes on."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from companions import installed, worker
from processes import Site, ruby

from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.wire.payload import fingerprint
from tests.running import in_flight

UUID = "224a1be4-c469-4117-94af-8540a8358a95"


def job(jid: str, /, **changes: Any) -> bytes:
    fields = {"class": "Rb::Step", "args": [], "jid": jid, "queue": "ruby", "retry": True, **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


def after(jid: str, /, **step: Any) -> bytes:
    """A step with a continuation that cannot be started."""
    node = {"__type__": "job", "class": "Rb::Step", "args": [], **step}
    chain = {"__type__": "chain", "children": [node]}
    return job(jid, workflow_run_id=UUID, workflow_completion_callbacks=[[UUID, chain, False]])


#: Bytes, and the error that they get.  Their jid is the place in this list where they can have one.
BAD = [
    (b"no JSON <b>at all</b>", "MalformedPayload"),
    (b"", "MalformedPayload"),
    (b"\xff\xfe\x00 no UTF-8", "MalformedPayload"),
    (b'{"class": "Rb::Step", "args": ["\xff"]}', "MalformedPayload"),
    (b'{"class": "Rb::Step", "args": ["\\ud800"], "jid": "surrogate"}', "MalformedPayload"),
    (b'{"class": "Rb::Step", "args": [1e999], "jid": "infinite"}', "MalformedPayload"),
    (b'["an array"]', "MalformedPayload"),
    (b"[" * 100_000, "MalformedPayload"),
    (b'{"class":"Rb::Step","args":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "MalformedPayload"),
    (b"{}", "InvalidPayload"),
    (job("no class", **{"class": ...}), "InvalidPayload"),
    (job("class 7", **{"class": 7}), "InvalidPayload"),
    (job("no args", args=...), "InvalidPayload"),
    (job("args", args={"a": 1}), "InvalidPayload"),
    (job("count", retry_count="x"), "InvalidPayload"),
    (job("large count", retry_count=10**400), "InvalidPayload"),
    (job("failed at", failed_at="yesterday", retry_for=5), "InvalidPayload"),
    (job("large failed at", failed_at=10**400), "InvalidPayload"),
    (job("wrapped", wrapped=[5]), "InvalidPayload"),
    (job("backtrace", backtrace=[]), "InvalidPayload"),
    (job("no constant", retry=0, **{"class": "Rb::Unheard"}), "NameError"),
    (job("no name", retry=0, **{"class": "no constant"}), "NameError"),
    (job("no job", retry=0, **{"class": "Kernel"}), "NoMethodError"),
    (job("junk", workflow_run_id="r", workflow_completion_callbacks="<junk>"), "InvalidCallbacks"),
    (job("dict", workflow_completion_callbacks={"a": 1}), "InvalidCallbacks"),
    (job("entry 5", workflow_completion_callbacks=[5]), "InvalidCallbacks"),
    (job("queues", workflow_completion_callbacks=[["queues", None, True]]), "InvalidCallbacks"),
    (after("loop", __type__="loop"), "InvalidNode"),
    (after("queue null", queue=None), "InvalidNode"),
    (after("queue 5", queue=5), "InvalidNode"),
    (after("queue dict", queue={}), "InvalidNode"),
    (after("queue empty", queue=""), "InvalidNode"),
    (after("args after", args={}), "InvalidNode"),
    (after("delay", __type__="with_delay", delay="soon", task={}), "InvalidNode"),
    (job("other", sideline_run_id=UUID, sideline_completion_callbacks=[]), "OtherDialect"),
]

#: Strange, and run all the same.
FINE = [
    job("created", created_at="yesterday", enqueued_at=[]),
    job("large created", created_at=10**400),
    job("no jid", jid=...),
    job("jid 5", jid=5),
    job("tags", tags="etl"),
    job("retry 1e400", retry=10**400),
]


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
    return [json.loads(member) for member in site.client.zrange("dead", 0, -1)]


def good(site: Site) -> None:
    """A good job is done."""
    name = uuid.uuid4().hex
    site.client.lpush("queue:ruby", job(name, args=[name]))
    done(site, name)


def done(site: Site, name: str) -> None:
    site.eventually(lambda: any(e["args"] == [name] for e in site.events()), "the good job", 20)


def test_in_the_queue(site: Site) -> None:
    for raw, _ in BAD:
        site.client.lpush("queue:ruby", raw)
    site.client.lpush("queue:ruby", *FINE)
    wanted = sorted(error for _, error in BAD)
    site.eventually(lambda: len(dead(site)) >= len(wanted), "all bad ones in dead", 20)
    good(site)
    found = sorted(job["error_class"] for job in dead(site))
    assert found == wanted
    site.eventually(lambda: not in_flight(site.client), "an empty flight", 20)
    assert len(site.events()) == len(FINE) + 1
    # Any of Sidekiq's pages can show each, and push it again.
    assert all(
        type(j["class"]) is type(j["jid"]) is type(j["queue"]) is str and type(j["args"]) is list for j in dead(site)
    )
    raws = {base64.b64decode(j["raw"]) for j in dead(site) if "raw" in j}
    assert raws >= {raw for raw, name in BAD if name == "MalformedPayload"}
    # Pressed again, they fail again.
    again = [j for j in dead(site) if "raw" in j]
    site.client.delete("dead")
    for j in again:
        site.client.lpush("queue:ruby", json.dumps(j))
    site.eventually(lambda: len(dead(site)) == len(again), "those of them that were wrapped", 20)
    assert {base64.b64decode(j["raw"]) for j in dead(site)} == raws
    site.client.delete("dead")


@pytest.mark.parametrize("name", ["schedule", "retry"])
def test_in_a_set(site: Site, name: str) -> None:
    bad = [(raw, error) for raw, error in BAD if error in ("MalformedPayload", "InvalidPayload")]
    bad += [(job(f"to {queue!r}", queue=queue), "InvalidPayload") for queue in (5, [], {})]
    fine = uuid.uuid4().hex
    site.client.zadd(name, {raw: n for n, (raw, _) in enumerate(bad)} | {job(fine, args=[fine]): 100})
    done(site, fine)
    site.eventually(lambda: len(dead(site)) == len(bad), "all bad ones in dead", 20)
    assert sorted(j["error_class"] for j in dead(site)) == sorted(error for _, error in bad)
    assert site.client.zcard(name) == 0
    site.client.delete("dead")


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
