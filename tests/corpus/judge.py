"""Where each member of the corpus is, told from Redis alone."""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from .loader import NAME_KEY, NEXT, QUEUE, Member, Runner, WrongKey

#: How many good jobs are put beside the bad ones.
GOOD = 20

#: The worker that has died, of the members in flight.
DEAD_WORKER = f"gone:1:abc:{QUEUE}"

#: Lists to which jobs push their first argument: the job itself, and what follows it.
RAN = "corpus:ran"
RAN_NEXT = "corpus:next"

#: While this key exists, every job but the good ones raises after it was noted.
FAIL = "corpus:fail"

#: Keys that a failure, a promotion or a burial writes.
_WRITTEN = {
    *("queue", "error_class", "error_message", "error_backtrace", "failed_at", "retried_at", "retry_count"),
    *("enqueued_at", "at", "discarded_at"),
}


def put(client: Any, place: str, members: Sequence[Member]) -> None:
    """Put members where they are to be found, good jobs before, between and behind them."""
    for member in members:
        for command in member.redis:
            client.execute_command(*command)
    raws = [member.raw for member in members]
    for number in range(GOOD // 2):
        raws.insert(number * len(raws) // (GOOD // 2), good(number))
    if place in ("queue", "fails"):
        client.lpush(f"queue:{QUEUE}", *raws)
    elif place == "in flight":
        client.hset(f"swf:inflight:{DEAD_WORKER}", mapping={f"{n:x}:1?": raw for n, raw in enumerate(raws)})
        client.zadd("swf:workers", {DEAD_WORKER: 1.0})
    elif place == "dead":
        # Now, so that nothing is trimmed away, and only what is bad.
        now = client.time()[0]
        client.zadd(place, {member.raw: now - 1000 + n / 1000 for n, member in enumerate(members)})
        client.lpush(f"queue:{QUEUE}", *map(good, range(GOOD // 2)))
    else:
        client.zadd(place, {raw: 1 + n / 1000 for n, raw in enumerate(raws)})
    client.lpush(f"queue:{QUEUE}", *map(good, range(GOOD // 2, GOOD)))


def good(number: int) -> bytes:
    """A job with nothing wrong."""
    name = f"good {number}"
    jid = f"900d{number:020x}"
    return json.dumps({"class": "Corpus::Job", "args": [name], "jid": jid, "queue": QUEUE, "retry": 0}).encode()


#: Characters of an error's message in ``dead``: pages show it whole.
MAX_MESSAGE = 10_000


def wrapped(client: Any) -> dict[bytes, bytes]:
    """Bytes of each member that is wrapped in ``dead`` -> the dead job."""
    jobs = {raw: _unwrapped(_object(raw)) for raw in client.zrange("dead", 0, -1)}
    return {inner: raw for raw, inner in jobs.items() if inner is not None}


def unreadable(client: Any) -> list[str]:
    """The wrapped jobs of ``dead`` that Sidekiq's pages cannot show or push again, and why."""
    found = []
    for inner, raw in wrapped(client).items():
        fields = _object(raw)
        wrong = [name for name in ("class", "jid", "queue", "error_message") if type(fields.get(name)) is not str]
        if type(fields.get("args")) is not list:
            wrong.append("args")
        if len(str(fields.get("error_message"))) > MAX_MESSAGE:
            wrong.append("length of error_message")
        if wrong:
            found.append(f"{inner[:60]!r}: {', '.join(wrong)}")
    return found


def press_wrapped(client: Any) -> set[bytes]:
    """Retry all wrapped jobs of ``dead`` as they are, as a person does; the bytes in them."""
    found = wrapped(client)
    for raw in found.values():
        with client.pipeline(transaction=True) as pipe:
            pipe.zrem("dead", raw)
            pipe.lpush(f"queue:{QUEUE}", raw)
            pipe.execute()
    return set(found)


#: Type -> the command that makes a key of it, and the rest of that command.
_MAKE: dict[str, tuple[str, tuple[str, ...]]] = {
    "string": ("SET", ("text",)),
    "hash": ("HSET", ("a", "b")),
    "list": ("LPUSH", ("a",)),
    "set": ("SADD", ("a",)),
    "zset": ("ZADD", ("1", "a")),
}


def make(client: Any, wrong: WrongKey, own: str = "") -> str:
    """Make a key of the wrong type; its name.

    Parameters:
      own: The identity of the worker.
    """
    name = wrong.key.replace("OWN", own)
    for command in wrong.redis:
        client.execute_command(*command)
    make_it, rest = _MAKE[wrong.made]
    with client.pipeline(transaction=True) as pipe:
        pipe.delete(name)
        pipe.execute_command(make_it, name, *rest)
        pipe.execute()
    return name


def is_kept(client: Any, wrong: WrongKey, name: str) -> bool:
    """Whether a key is as :func:`make` made it."""
    if client.type(name).decode() != wrong.made:
        return False
    return bool(
        {
            "string": lambda: client.get(name) == b"text",
            "hash": lambda: client.hgetall(name) == {b"a": b"b"},
            "list": lambda: client.lrange(name, 0, -1) == [b"a"],
            "set": lambda: client.smembers(name) == {b"a"},
            "zset": lambda: client.zrange(name, 0, -1) == [b"a"],
        }[wrong.made]()
    )


def send_good(client: Any, without: str = "", only: str = "") -> None:
    """Twenty good jobs: half of them are in the queue, half are due in ``schedule``.

    Parameters:
      without: A key to leave alone, for it holds another type.
      only: The one key to write to.
    """
    queue = f"queue:{QUEUE}"
    if without != queue and only in ("", queue):
        client.lpush(queue, *map(good, range(GOOD // 2)))
    if without != "schedule" and only in ("", "schedule"):
        client.zadd("schedule", {good(number): 1.0 + number for number in range(GOOD // 2, GOOD)})


def times_done(client: Any) -> list[int]:
    """How often each of the good jobs was done."""
    ran = Counter(raw.decode() for raw in client.lrange(RAN, 0, -1))
    return [ran[f"good {number}"] for number in range(GOOD)]


def due_are_there(client: Any, wrong: WrongKey) -> bool:
    """Whether the good jobs that have become due beside a wrong key are where it says."""
    if wrong.due == "runs":
        return True
    place, error = wrong.due.split()
    return [json.loads(raw)["error_class"] for raw in client.zrange(place, 0, -1)] == [error] * (GOOD // 2)


#: :attr:`WrongKey.works` -> how often each of the good jobs is done beside the wrong key.
BESIDE = {"all": [1] * GOOD, "queue": [1] * (GOOD // 2) + [0] * (GOOD // 2), "none": [0] * GOOD}


def good_done(client: Any) -> int:
    """How many of the good jobs are done."""
    ran = {raw.decode() for raw in client.lrange(RAN, 0, -1)}
    return sum(f"good {number}" in ran for number in range(GOOD))


def outcomes(client: Any, place: str, members: Sequence[Member]) -> dict[str, str]:
    """Member -> what has become of it so far, in the words of README.md."""
    ran = Counter(raw.decode("utf-8", "replace") for raw in client.lrange(RAN, 0, -1))
    by_raw = {innermost(member.raw): member for member in members} | {member.raw: member for member in members}
    by_name = {member.name: member for member in members}
    found: dict[str, list[str]] = defaultdict(list)
    for where, raw in _everything(client):
        member = by_raw.get(raw) or _named(raw, by_raw, by_name)
        if member is not None:
            found[member.name].append(_outcome(where, raw, member, place))
    return {member.name: _told(ran[member.name], found[member.name]) for member in members}


def differences(client: Any, runner: Runner, place: str, members: Sequence[Member]) -> list[str]:
    """A line for each member that is not where the corpus says."""
    now = outcomes(client, place, members)
    expected = {member.name: member.outcome(runner, place) for member in members}
    return [
        f"{name}: {now[name]!r}, and the corpus says {expected[name]!r}"
        for name in expected
        if now[name] != expected[name]
    ]


def settle(client: Any, runner: Runner, place: str, members: Sequence[Member], eventually: Callable[..., Any]) -> None:
    """Wait until the good jobs are done, each member is where the corpus says, and what follows has run.

    Parameters:
      eventually: Waits for a condition, as that of ``tests/running.py``.
    """
    found: list[str] = []

    def settled() -> bool:
        found[:] = differences(client, runner, place, members)
        done = good_done(client)
        ran, wanted = followed(client, members), _following(runner, place, members)
        for name in sorted({*ran, *wanted}):
            if ran.get(name, 0) != wanted.get(name, 0):
                found.append(f"{name}: what follows ran {ran.get(name, 0)} times, not {wanted.get(name, 0)}")
        if done < GOOD:
            found.append(f"{done} of {GOOD} good jobs are done")
        return not found

    try:
        eventually(settled)
    except AssertionError as e:
        shown = "\n".join(found[:100])
        raise AssertionError(f"{e}\n{len(found)} differences:\n{shown}") from None


def _following(runner: Runner, place: str, members: Sequence[Member]) -> dict[str, int]:
    """Member -> how often what follows it has to run."""
    return {
        member.name: member.follows
        for member in members
        if member.follows and not member.cure and member.outcome(runner, place) == "runs"
    }


def cure(client: Any, members: Sequence[Member]) -> None:
    """Mend what the members name, and retry them from ``dead`` as Sidekiq's pages do."""
    for member in members:
        for command in member.cure:
            client.execute_command(*command)
    for raw in client.zrange("dead", 0, -1):
        job = {**json.loads(raw), "retry_count": json.loads(raw)["retry_count"] - 1}
        client.zrem("dead", raw)
        client.lpush(f"queue:{QUEUE}", json.dumps(job))


def followed(client: Any, members: Sequence[Member]) -> dict[str, int]:
    """Member -> how often what follows it has run, or waits in a queue."""
    ran = Counter(raw.decode("utf-8", "replace") for raw in client.lrange(RAN_NEXT, 0, -1))
    return {member.name: ran[member.name] for member in members if ran[member.name]}


def _everything(client: Any) -> list[tuple[str, bytes]]:
    """Each element of each place."""
    found: list[tuple[str, bytes]] = []
    for key in client.keys("queue:*"):
        if client.type(key) == b"list":
            found += [(key.decode("utf-8", "replace"), raw) for raw in client.lrange(key, 0, -1)]
    for name in ("schedule", "retry", "dead"):
        if client.type(name) == b"zset":
            found += [(name, raw) for raw in client.zrange(name, 0, -1)]
    for key in client.keys("swf:inflight:*"):
        if client.type(key) == b"hash":
            found += [("in flight", raw) for raw in client.hvals(key)]
    return found


def _named(raw: bytes, by_raw: dict[bytes, Member], by_name: dict[str, Member]) -> Member | None:
    """The member that has become this job."""
    fields = _object(raw)
    wrapped = _unwrapped(fields)
    if wrapped is not None:
        return by_raw.get(wrapped) or _named(wrapped, by_raw, by_name)
    name = fields.get(NAME_KEY)
    if fields.get("class") == NEXT:
        return None
    return by_name.get(name) if type(name) is str else None


def _outcome(where: str, raw: bytes, member: Member, place: str) -> str:
    if where == place and raw == member.raw:
        return "stays"
    if where.startswith("queue:"):
        return where.replace("queue:", "queue ", 1) + _changes(raw, member)
    if where == "in flight":
        return where if raw == member.raw else "in flight changed"
    fields = _object(raw)
    if _unwrapped(fields) is not None and innermost(raw) == innermost(member.raw):
        return f"{where} {fields.get('error_class')} wrapped"
    return f"{where} {fields.get('error_class')}{_changes(raw, member)}"


def _changes(raw: bytes, member: Member) -> str:
    """What a job has lost of the member that it was."""
    if raw == member.raw:
        return ""
    fields, before = _object(raw), _object(innermost(member.raw))
    jid = before.get("jid")
    if type(jid) is not str or not 0 < len(jid) <= 255:
        before.pop("jid", None)  # another was made from the bytes
    # What is null may be filled with what the class says.
    kept = [key for key in before if key not in _WRITTEN and before[key] is not None]
    changed = [key for key in kept if not _equal(fields.get(key), before[key])]
    return f" without its {', '.join(map(repr, changed))}" if changed else ""


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _told(ran: int, found: Sequence[str]) -> str:
    if not found:
        return {0: "dropped", 1: "runs"}.get(ran, f"ran {ran} times")
    told = " and ".join(found)
    return {0: told, 1: f"ran, {told}"}.get(ran, f"ran {ran} times, {told}")


def _integer(digits: str) -> int | str:
    """An integer; one with more digits than Python converts stays text."""
    return int(digits) if len(digits) < 4300 else digits


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw, parse_int=_integer)
    except (ValueError, RecursionError):
        return {}
    return value if type(value) is dict else {}


def innermost(raw: bytes) -> bytes:
    """The bytes inside of all burials around them."""
    inner = _unwrapped(_object(raw))
    return raw if inner is None else innermost(inner)


def _unwrapped(fields: dict[str, Any]) -> bytes | None:
    if fields.get("class") != "MalformedPayload" or type(fields.get("raw")) is not str:
        return None
    try:
        return base64.b64decode(fields["raw"], validate=True)
    except ValueError:
        return None
