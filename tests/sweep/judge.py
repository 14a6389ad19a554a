"""What is wrong with the world after a point."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from ..trees import violations
from .scenario import CALLS, Scenario, run_id

#: The kinds of fault, as the table has them.
KINDS = ("lost", "doubled", "early", "stuck", "without_ttl", "unrecorded")

#: Keys that live for ever, and why.  All others must expire.
PERMANENT = (
    (r"queues", "Sidekiq: the names of all queues"),
    (r"processes", "Sidekiq: the processes; their records expire"),
    (r"stat:(processed|failed)", "Sidekiq: counters of all time"),
    (r"queue:[^:]+", "Sidekiq: jobs that wait"),
    (r"schedule|retry|dead", "Sidekiq: jobs that wait for a time, or for a person"),
    (r"paused", "Sidekiq Pro: queues that a person has paused"),
    (r"swf:workers", "who holds jobs in flight"),
    (r"swf:inflight:.+", "jobs in flight: judged as stuck"),
    (r"swf:arrived:.+", "jobs on their way into flight: judged as stuck"),
    (r"swf:fanouts", "fan-outs that are committed and not poured: judged as stuck"),
    (r"swf:registry:(python|ruby)", "what each language tells the other; a process prolongs it"),
    (r"swf:keeper:dead", "how far `dead` was looked through"),
)
_PERMANENT = re.compile("|".join(f"(?:{pattern})" for pattern, _ in PERMANENT))


@attrs.frozen
class Event:
    """What a process has told."""

    what: str
    run: int = -1
    step: int = -1
    pid: int = 0
    point: int = 0
    jid: str = ""
    error: str = ""
    found: str = ""

    @classmethod
    def read(cls, line: bytes) -> Event:
        """Of a line of the pipe."""
        return cls(**json.loads(line))


@attrs.frozen
class World:
    """All that a point has left behind.

    Attributes:
      ttls: Key -> seconds; -1 lives for ever.
      lengths: Key -> number of elements, of queues, sets and what is in flight.
      committed: Keys of the fan-outs that are committed and not poured: any
        worker's next beat goes on with them, so they live as long as it takes.
      memory: Run -> what its memory holds.
      dead: Payloads in ``dead``.
      records: Run -> its state, and the number of its steps that are done, by its record.
    """

    events: Sequence[Event] = ()
    ttls: Mapping[str, int] = attrs.field(factory=dict)
    lengths: Mapping[str, int] = attrs.field(factory=dict)
    committed: frozenset[str] = frozenset()
    memory: Mapping[int, Mapping[str, Any]] = attrs.field(factory=dict)
    dead: Sequence[Mapping[str, Any]] = ()
    records: Mapping[int, tuple[str, int]] = attrs.field(factory=dict)


@attrs.frozen
class Finding:
    """One fault; ``kind`` is one of :data:`KINDS`."""

    kind: str
    text: str


#: Reads in one step how much waits for a worker or is in flight.
_MOVES = """
local count = redis.call('ZCARD', 'retry')
for _, name in ipairs(redis.call('SMEMBERS', 'queues')) do count = count + redis.call('LLEN', 'queue:' .. name) end
return count + #redis.call('KEYS', 'swf:inflight:*') + #redis.call('KEYS', 'swf:arrived:*')
"""


def at_rest(client: Any) -> bool:
    """Whether nothing waits and nothing is in flight."""
    return not moves(client) and client.zcard("schedule") == 0


def moves(client: Any) -> bool:
    """Whether something waits for a worker, or is in flight."""
    return bool(client.eval(_MOVES, 0) > 0)


def look(client: Any, scenario: Scenario, events: Sequence[Event]) -> World:
    """Read the world, while nothing works in it."""
    names = [raw.decode("utf-8", "replace") for raw in client.keys("*")]
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.ttl(name)
        ttls = dict(zip(names, pipe.execute()))
    lengths = {name: client.llen(name) for name in names if name.startswith(("queue:", "swf:arrived:"))}
    lengths |= {name: client.zcard(name) for name in ("schedule", "retry")}
    lengths |= {name: client.hlen(name) for name in names if name.startswith("swf:inflight:")}
    fanouts = [raw.decode() for raw in client.zrange("swf:fanouts", 0, -1)]
    committed = frozenset(f"swf:fanout:{fanout}" for fanout in fanouts)
    memory: dict[int, dict[str, Any]] = {}
    for number, run in enumerate(scenario.runs):
        fields = [] if run.plain else client.hgetall(f"swf:mem:{run_id(number)}").items()
        memory[number] = {name.decode(): json.loads(value) for name, value in fields}
    dead = [json.loads(member) for member in client.zrange("dead", 0, -1)]
    records = {number: _record(client, run_id(number)) for number, run in enumerate(scenario.runs) if not run.plain}
    return World(events, ttls, lengths, committed, memory, dead, records)


def _record(client: Any, run: str) -> tuple[str, int]:
    """The state of a run, and the number of its steps that are done."""
    key = f"swf:flow:{run}"
    state = client.hget(key, "state") or b"none"
    timed = max(0, client.hlen(f"{key}:times") - 1)
    return state.decode(), timed + client.bitcount(f"{key}:done")


def ended(events: Sequence[Event]) -> set[tuple[int, int]]:
    """The steps that have ended."""
    return {(event.run, event.step) for event in events if event.what == "end"}


def expected(scenario: Scenario) -> set[tuple[int, int]]:
    """The steps that must end."""
    return {(number, step) for number, run in enumerate(scenario.runs) for step in run.ends()}


def judge(scenario: Scenario, world: World) -> list[Finding]:
    """All that is wrong."""
    return [
        *_order(scenario, world),
        *_calls(scenario, world),
        *_doubled(scenario, world),
        *_left(world),
        *forever(world),
        *_memory(scenario, world),
        *_records(scenario, world),
    ]


def _order(scenario: Scenario, world: World) -> Iterator[Finding]:
    steps: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for event in world.events:
        if event.what in ("start", "end"):
            steps[event.run].append((event.what, event.step))
    for number, run in enumerate(scenario.runs):
        need_not = {f"job {step} never ended" for step in run.end.never | run.end.maybe}
        for text in violations(run.shape, run.count, steps[number]):
            if text not in need_not:
                yield Finding("early" if "before" in text else "lost", f"run {number}: {text}")
    for job in world.dead:
        if _may_be_dead(scenario, job):
            continue
        args = str(job.get("args"))
        error = f"{job.get('error_class')}: {job.get('error_message')}"
        yield Finding("lost", f"job {job.get('class')} {args[:60]} is dead: {error[:200]}")
    for event in world.events:
        if event.what == "error":
            yield Finding("lost", f"run {event.run} could not be started: {event.error}")


def _may_be_dead(scenario: Scenario, job: Mapping[str, Any]) -> bool:
    """Whether a step has left its run, is the one that stops it, or is in a group that can do without it."""
    if "swf_died_in" in job or job.get("class") != "Sweep::Dies":
        return "swf_died_in" in job
    run, step = job["args"][:2]
    options = scenario.runs[run].options[step]
    return options.get("dies") == "stops" or "needs" in options


def _calls(scenario: Scenario, world: World) -> Iterator[Finding]:
    """Callbacks that should not be called, are called too early, or with another state; steps that should not start."""
    starts: dict[int, dict[int, Event]] = defaultdict(dict)
    ended: dict[int, set[int]] = defaultdict(set)
    names = {number: name for name, number in CALLS.items()}
    for event in world.events:
        if event.what == "end":
            ended[event.run].add(event.step)
        if event.what != "start" or event.run < 0:
            continue
        end = scenario.runs[event.run].end
        if event.step in end.never:
            yield Finding("early", f"run {event.run}: step {event.step} has started, though the run ended before it")
        name = names.get(event.step)
        if name is None or event.step in starts[event.run]:
            continue
        starts[event.run][event.step] = event
        if name not in end.calls:
            yield Finding("doubled", f"run {event.run}: {name} is called, and should not be")
        elif event.found != end.calls[name]:
            yield Finding("unrecorded", f"run {event.run}: {name} is told {event.found!r}")
        left = set(range(scenario.runs[event.run].count)) - end.never - end.maybe - ended[event.run]
        if left and name != "failure":
            yield Finding("early", f"run {event.run}: {name} is called before the steps {sorted(left)} have ended")


def _doubled(scenario: Scenario, world: World) -> Iterator[Finding]:
    jids: dict[tuple[int, int], set[str]] = defaultdict(set)
    starts: Counter[tuple[int, int, int]] = Counter()
    followed: set[tuple[int, int]] = set()
    before: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, run in enumerate(scenario.runs):
        for earlier, later in run.pairs:
            before[number, later].append(earlier)
    sent: Counter[tuple[int, int]] = Counter()
    for event in world.events:
        if event.what == "sent":
            sent[event.run, event.step] += 1
        if event.what != "start":
            continue
        step = (event.run, event.step)
        jids[step].add(event.jid)
        starts[event.run, event.step, event.pid] += 1
        if step in followed:
            yield Finding("doubled", f"run {event.run}: step {event.step} runs again after a later one has started")
        followed.update((event.run, earlier) for earlier in before.pop(step, ()))
    for (number, index), found in sorted(jids.items()):
        if len(found) > 1 and not scenario.runs[number].plain:
            yield Finding("doubled", f"run {number}: step {index} is {len(found)} jobs: {', '.join(sorted(found))}")
    for (number, index, pid), count in sorted(starts.items()):
        options = scenario.runs[number].options.get(index, {})
        # A step that starts a run fails with the command that is hurt, and is tried again.
        # A job whose sending failed is sent again, and may then be there twice.
        if count > max(1, sent[number, index]) and not {"fail", "starts", "seed", "acts"} & set(options):
            yield Finding("doubled", f"run {number}: step {index} was run {count} times by process {pid}")


def _left(world: World) -> Iterator[Finding]:
    for name, length in world.lengths.items():
        if length and name.startswith("swf:inflight:"):
            yield Finding("stuck", f"{name} holds {length} jobs")
        elif length:
            yield Finding("stuck", f"{name} still holds {length} jobs, and they do not move")
    for name in sorted(world.committed):
        yield Finding("stuck", f"the fan-out {name} is committed, and was not poured to its end")


def forever(world: World) -> Iterator[Finding]:
    """Keys that never expire."""
    for name, ttl in sorted(world.ttls.items()):
        if ttl == -1 and name not in world.committed and not _PERMANENT.fullmatch(name):
            yield Finding("without_ttl", f"the key {name!r} has no TTL")


def _records(scenario: Scenario, world: World) -> Iterator[Finding]:
    for number, found in world.records.items():
        run = scenario.runs[number]
        wanted = (run.end.state, run.done() if run.end.counted else found[1])
        if found != wanted:
            yield Finding("unrecorded", f"the record of run {number} says {found}, and not {wanted}")


def _memory(scenario: Scenario, world: World) -> Iterator[Finding]:
    for event in world.events:
        if event.what == "memory":
            yield Finding("lost", f"run {event.run}: step {event.step} read {event.found} from the memory")
    for number, run in enumerate(scenario.runs):
        for name, value in run.memory().items():
            found = world.memory.get(number, {}).get(name)
            if found != value:
                yield Finding("lost", f"run {number}: {name!r} in the memory is {str(found)[:60]!r}")
