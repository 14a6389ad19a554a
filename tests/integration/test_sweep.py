"""The tool of ``make sweep``: its proxy does each harm, and its judge finds each fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import redis

from tests.sweep import modes
from tests.sweep.judge import KINDS, Event, World, expected, forever, judge
from tests.sweep.lane import Lane, Outcome, Point
from tests.sweep.modes import Mode
from tests.sweep.proxy import Harm, Proxy, name_of, repetition_of
from tests.sweep.resp import Frames, end_of, words
from tests.sweep.scenario import CALLS, End
from tests.sweep.scenarios import ALL, SCENARIOS, Run, Scenario

from ..trees import before

# -- the proxy ------------------------------------------------------------------


def packed(*command: str) -> bytes:
    return b"".join([f"*{len(command)}\r\n".encode(), *(f"${len(w)}\r\n{w}\r\n".encode() for w in command)])


class Process:
    """What a worker is to the proxy: a connection, and whether it was killed."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.killed = 0

    def kill(self) -> None:
        self.killed += 1

    async def send(self, *commands: bytes) -> bytes:
        """What comes back until the proxy closes, or as many replies as commands."""
        address = urlsplit(self.proxy.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"".join(commands))
        frames = Frames()
        replies: list[bytes] = []
        while len(replies) < len(commands):
            data = await asyncio.wait_for(reader.read(65_536), 10)
            if not data:
                break
            replies += frames.feed(data)
        writer.close()
        return b"".join(replies)


def through_proxy(
    redis_url: str, mode: Mode, number: int, scene: Callable[[Proxy, Process], Awaitable[None]]
) -> tuple[Harm, Process]:
    async def run() -> tuple[Harm, Process]:
        proxy = Proxy(urlsplit(redis_url).port or 0)
        await proxy.start()
        process = Process(proxy)
        harm = Harm(mode, number, process.kill)
        await proxy.arm(harm)
        try:
            await scene(proxy, process)
        finally:
            await proxy.close()
        return harm, process

    return asyncio.run(run())


FIRST, SECOND, THIRD = (packed("RPUSH", "list", word) for word in ("first", "second", "third"))


@pytest.mark.parametrize(
    ("mode", "reply", "left", "killed"),
    [
        (modes.KILL_BEFORE, b":1\r\n", [b"first"], 1),
        (modes.KILL_AFTER, b":1\r\n", [b"first", b"second"], 1),
        (modes.DROP, b":1\r\n", [b"first", b"second"], 0),
        (modes.CUT, b":1\r\n", [b"first"], 0),
        (modes.CUT_KILL, b":1\r\n", [b"first"], 1),
        (modes.REFUSE, b":1\r\n-OOM", [b"first", b"third"], 0),
        (modes.LATE, b":1\r\n", [b"first"], 0),
    ],
    ids=lambda value: value.name if isinstance(value, Mode) else "",
)
def test_each_harm(
    redis_url: str, client: redis.Redis, mode: Mode, reply: bytes, left: list[bytes], killed: int
) -> None:
    async def scene(proxy: Proxy, process: Process) -> None:
        found = await process.send(FIRST, SECOND, THIRD)
        assert found.startswith(reply)
        assert len(Frames().feed(found)) == (3 if mode is modes.REFUSE else 1)

    harm, process = through_proxy(redis_url, mode, 2, scene)
    assert client.lrange("list", 0, -1) == left
    assert process.killed == killed
    assert harm.hit == "RPUSH"


def test_handshakes_count_where_they_are_to(redis_url: str, client: redis.Redis) -> None:
    async def scene(proxy: Proxy, process: Process) -> None:
        proxy.harm.handshakes = False
        await process.send(packed("HELLO", "3"), packed("CLIENT", "SETINFO", "LIB-NAME", "x"), FIRST, SECOND)

    harm, _ = through_proxy(redis_url, modes.REFUSE, 2, scene)
    assert harm.seen == 2
    assert client.lrange("list", 0, -1) == [b"first"]


def test_late_means_after_its_repetition(redis_url: str, client: redis.Redis) -> None:
    async def scene(proxy: Proxy, process: Process) -> None:
        assert await process.send(FIRST) == b""
        assert await process.send(SECOND) == b":1\r\n"
        assert client.lrange("list", 0, -1) == [b"second"]
        assert await process.send(FIRST) == b":2\r\n"
        # With the next one it is sure to have been there.
        await process.send(packed("PING"))

    harm, _ = through_proxy(redis_url, modes.LATE, 1, scene)
    assert client.lrange("list", 0, -1) == [b"second", b"first", b"first"]
    assert (harm.repeated, harm.delivered) == (1, True)


def test_late_without_a_repetition_comes_when_it_is_asked_for(redis_url: str, client: redis.Redis) -> None:
    async def scene(proxy: Proxy, process: Process) -> None:
        assert await process.send(FIRST) == b""
        assert client.lrange("list", 0, -1) == []
        assert await proxy.deliver()
        assert not await proxy.deliver()

    through_proxy(redis_url, modes.LATE, 1, scene)
    assert client.lrange("list", 0, -1) == [b"first"]


def test_a_script_is_repeated_where_its_first_key_and_argument_are_the_same() -> None:
    repeats = repetition_of(packed("EVALSHA", "sha", "2", "k1", "k2", "a1", "a2"))
    assert repeats(packed("EVALSHA", "sha", "3", "k1", "k2", "k3", "a1", "other"))
    assert not repeats(packed("EVALSHA", "sha", "2", "k1", "k2", "a2", "a2"))
    assert not repeats(packed("EVALSHA", "other", "2", "k1", "k2", "a1", "a2"))


def test_an_error_that_fits_the_command() -> None:
    errors = {modes.error_of(number, of_script=True).split()[0] for number in range(100)}
    assert {"READONLY", "LOADING", "OOM", "BUSY", "NOREPLICAS", "NOSCRIPT", "MISCONF"} <= errors
    assert not any(modes.error_of(number, of_script=False).startswith("NOSCRIPT") for number in range(100))


def test_frames_are_cut_where_they_end() -> None:
    frames = [packed("SET", "key", "a\r\nb"), b"+OK\r\n", b"$-1\r\n", b"*2\r\n:1\r\n$1\r\nx\r\n", b"%1\r\n+a\r\n*0\r\n"]
    frames.append(b">2\r\n$10\r\ninvalidate\r\n_\r\n")
    cutter, found = Frames(), []
    for byte in b"".join(frames):
        found += cutter.feed(bytes([byte]))
    assert found == frames
    assert all(end_of(frame[:-1], 0) == -1 for frame in frames)
    assert words(frames[0]) == [b"SET", b"key", b"a\r\nb"]
    assert name_of(packed("CLIENT", "tracking", "on")) == "CLIENT TRACKING"


# -- the judge ------------------------------------------------------------------

CHAIN = Scenario("test", "", (Run(("chain", ["job", "job"]), {0: {"out": 6}}),))


def events(*steps: tuple[str, int, str], pid: int = 1) -> list[Event]:
    return [Event(what, 0, step, pid, jid=jid) for what, step, jid in steps]


RIGHT = World(
    events=events(("start", 0, "a"), ("end", 0, "a"), ("start", 1, "b"), ("end", 1, "b")),
    ttls={"queues": -1, "swf:workers": -1, "BARRIER": 60},
    lengths={"queue:sweep": 0},
    memory={0: {"step0": "000000"}},
)


def test_nothing_is_found_where_all_is_right() -> None:
    assert judge(CHAIN, RIGHT) == []
    again = [*RIGHT.events[:2], *events(("start", 0, "a"), ("end", 0, "a"), pid=2), *RIGHT.events[2:]]
    assert judge(CHAIN, attrs.evolve(RIGHT, events=again)) == [], "a step may run again after a kill"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("lost", {"events": RIGHT.events[:2]}),
        ("lost", {"events": RIGHT.events[:3]}),
        ("lost", {"memory": {0: {}}}),
        ("lost", {"memory": {0: {"step0": "other"}}}),
        ("lost", {"events": [*RIGHT.events, Event("memory", 0, 1, found="None")]}),
        ("lost", {"dead": [{"class": "A", "error_class": "BarrierExpired"}]}),
        ("doubled", {"events": [*RIGHT.events, *events(("start", 1, "c"), ("end", 1, "c"), pid=2)]}),
        ("doubled", {"events": [*RIGHT.events, *events(("start", 1, "b"))]}),
        ("doubled", {"events": [*RIGHT.events, *events(("start", 0, "a"), pid=2)]}),
        ("early", {"events": [RIGHT.events[0], *RIGHT.events[2:], RIGHT.events[1]]}),
        ("stuck", {"lengths": {"swf:inflight:host:1:n:sweep": 1}}),
        ("stuck", {"lengths": {"queue:sweep": 1}}),
        ("stuck", {"ttls": {"swf:fanouts": -1, "swf:fanout:1": -1}, "committed": frozenset({"swf:fanout:1"})}),
        ("without_ttl", {"ttls": {"swf:fanout:1": -1}}),
        ("without_ttl", {"ttls": {"BARRIER_ran": -1}}),
        ("without_ttl", {"ttls": {"swf:mem:1": -1}}),
    ],
)
def test_each_fault_is_found(kind: str, changes: dict[str, Any]) -> None:
    assert kind in KINDS
    assert {finding.kind for finding in judge(CHAIN, attrs.evolve(RIGHT, **changes))} == {kind}


#: Step 1 dies, and step 2 does not start.
FAILS = Scenario(
    "test",
    "",
    (
        Run(
            ("chain", ["job", "job", "job"]),
            {1: {"dies": "stops"}},
            end=End("failed", {"failure": "failed", "complete": "failed"}, never=frozenset({2})),
        ),
    ),
)


def called(name: str, state: str, origin: str = "") -> list[Event]:
    number = CALLS[name]
    return [Event(what, 0, number, 1, jid=f"{name}{origin}", found=state) for what in ("start", "end")]


FAILED = World(
    events=[
        *events(("start", 0, "a"), ("end", 0, "a"), ("start", 1, "b"), ("end", 1, "b")),
        *called("failure", "failed"),
        *called("complete", "failed"),
    ],
    dead=[{"class": "Sweep::Dies", "args": [0, 1, {}]}],
    records={0: ("failed", 1)},
)


def test_a_run_ends_as_it_must() -> None:
    assert judge(FAILS, FAILED) == []
    assert expected(FAILS) == {(0, 0), (0, 1), (0, CALLS["failure"]), (0, CALLS["complete"])}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("early", {"events": [*FAILED.events, *events(("start", 2, "c"))]}),
        ("early", {"events": [*FAILED.events[:2], *called("complete", "failed"), *FAILED.events[2:6]]}),
        ("doubled", {"events": [*FAILED.events, *called("success", "")]}),
        ("doubled", {"events": [*FAILED.events, *called("failure", "failed", " again")]}),
        ("unrecorded", {"events": [*FAILED.events[:6], *called("complete", "done")]}),
        ("unrecorded", {"records": {0: ("running", 1)}}),
        ("unrecorded", {"records": {0: ("failed", 2)}}),
        ("lost", {"dead": [{"class": "Sweep::Step", "args": [0, 1, {}]}]}),
    ],
)
def test_each_fault_of_the_end_of_a_run_is_found(kind: str, changes: dict[str, Any]) -> None:
    assert kind in {finding.kind for finding in judge(FAILS, attrs.evolve(FAILED, **changes))}


def test_a_committed_fan_out_waits_for_a_beat_and_does_not_expire() -> None:
    world = World(ttls={"swf:fanout:1": -1, "swf:fanout:2": -1}, committed=frozenset({"swf:fanout:1"}))
    assert [finding.text for finding in forever(world)] == ["the key 'swf:fanout:2' has no TTL"]


def test_a_job_may_run_as_often_as_it_was_sent() -> None:
    scenario = Scenario("test", "", (Run("job", by="producer", plain=True),))
    ran = events(("start", 0, "a"), ("end", 0, "a"), ("start", 0, "a"), ("end", 0, "a"))
    sent = [Event("sent", 0, 0)]
    assert [finding.kind for finding in judge(scenario, World(events=sent + ran))] == ["doubled"]
    assert judge(scenario, World(events=sent + sent + ran)) == []


def test_what_a_scenario_expects() -> None:
    assert expected(CHAIN) == {(0, 0), (0, 1)}
    wide = SCENARIOS["fanout"]
    assert wide.runs[0].count == 2_502
    assert wide.runs[0].pairs == before(wide.runs[0].shape)
    for scenario in SCENARIOS.values():
        numbers = {k for offset in range(7) for k in scenario.points(20, offset)}
        assert numbers == set(range(1, 21)), scenario.name


# -- the whole ------------------------------------------------------------------


def in_lane(*points: Point) -> list[Outcome]:
    async def work() -> list[Outcome]:
        async with Lane() as lane:
            return [await lane.run(point) for point in points]

    return asyncio.run(work())


def test_a_point_of_each_kind() -> None:
    counted, killed, dropped = in_lane(
        Point("group", "drop", 0), Point("group", "kill-after", 12), Point("group", "drop", 12)
    )
    assert counted.commands > 12
    assert not counted.hit
    assert killed.hit
    assert killed.clean
    assert dropped.hit
    assert not dropped.clean
    assert not counted.findings + killed.findings + dropped.findings


def test_scenarios_have_names_of_their_own() -> None:
    """They are chosen by name: of two with the same one, only the last would be swept."""
    names = [scenario.name for scenario in ALL]
    assert sorted(set(names)) == sorted(names)
