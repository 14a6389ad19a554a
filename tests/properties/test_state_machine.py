"""A run on a real server, step by step beside the model: after each step both must say the same.

The model is that of ``tests/model``; here it is held against the package, and the
package against it.  Workers are driven by hand, as Dramatiq drives them: a
consumer hands out a message, middleware hears of it, the consumer takes its
acknowledgement.  Commands that a worker has sent are sent again, at once or much
later; workers die, or are taken for dead; jobs come twice; barriers expire; a
plain Ruby worker does its part with single commands.

A longer run, of new examples: ``make state-machine EXAMPLES=2000``.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import dramatiq
import pytest
import redis
from dramatiq.middleware import SkipMessage
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dramatiq_sidekiq_flow import Chain, Group, RedisHashMemory, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.broker import ack_batch, consumer, next_job
from dramatiq_sidekiq_flow.broker.in_flight import InFlight
from dramatiq_sidekiq_flow.store import scripts
from dramatiq_sidekiq_flow.store.resp3 import Replies

from ..example_counts import examples
from ..model.gem import IDLE as RUBY_IDLE
from ..model.gem import Gem
from ..model.ours import Protocol
from ..model.world import NO_BARRIER, NO_STEP, Flow, State, Tree, without

QUEUE = "python"
EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES") or 0)

#: Keys that may live for ever; all others have a TTL.
PERMANENT = re.compile(
    r"queues|queue:.*|schedule|retry|dead|processes|swf:workers|swf:inflight:.*|swf:registry:.*|stat:(processed|failed)"
)


class Hopeless(Exception):
    """What an actor raises that is not to be tried again."""


class RecordingConnection(redis.Connection):
    """Keeps what was sent, and can lose one command or one reply."""

    #: Every script call, as its arguments.
    sent: ClassVar[list[tuple[Any, ...]]] = []
    #: What is lost next: "command", "reply" or "".
    lose = ""
    _deaf = False

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        packed = Replies()
        packed.feed(b"".join(command))
        calls = [tuple(call) for call in packed.take() if call[0] in (b"EVALSHA", b"EVAL")]
        type(self).sent += calls
        if calls and RecordingConnection.lose:
            lost, RecordingConnection.lose = RecordingConnection.lose, ""
            if lost == "command":
                raise redis.ConnectionError("the command is lost")
            self._deaf = True
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        reply = super().read_response(*args, **kwargs)
        if self._deaf:
            raise redis.ConnectionError("the reply is lost")
        return reply


class Process:
    """A worker process with one thread, driven by hand.

    Attributes:
      message: What it has in hand, and whether its actor has begun.
      receipt: The model's.
      handed: Steps whose acknowledgement is handed over, and their receipts.
    """

    def __init__(self, url: str) -> None:
        options = redis.ConnectionPool.from_url(url).connection_kwargs
        pool = redis.ConnectionPool(connection_class=RecordingConnection, **options)
        self.broker = SidekiqBroker(client=redis.Redis(connection_pool=pool), heartbeat_timeout=600_000)
        self.broker.process.heartbeat.interval = 3600.0
        self.broker.add_middleware(WorkflowMiddleware(memory=RedisHashMemory()))

        @dramatiq.actor(queue_name=QUEUE, broker=self.broker, throws=Hopeless)
        def step(n: int) -> None: ...

        self.step = step
        self.consumer = self.broker.consume(QUEUE, prefetch=1, timeout=500)
        self.members = set(self.broker.process.heartbeat.members)
        self.message: Any = None
        self.begun = False
        self.receipt = 0
        self.handed: list[tuple[int, int]] = []

    def begin(self) -> bool:
        """As a worker thread does before it calls the actor; False where the job is not to run."""
        try:
            self.broker.emit_before("process_message", self.message)
        except SkipMessage as e:
            if self.message.failed:
                self.message.stuff_exception(e)
            self.broker.emit_after("skip_message", self.message)
            self.leave()
            return False
        self.begun = True
        return True

    def end(self, exception: Exception | None = None) -> None:
        """As a worker thread does when the actor has returned or raised."""
        if exception is None:
            self.broker.emit_after("process_message", self.message, result={"n": self.message.args[0]})
        else:
            self.message.stuff_exception(exception)
            self.broker.emit_after("process_message", self.message, exception=exception)
        self.leave()

    def leave(self) -> None:
        hook, settle = ("nack", self.consumer.nack) if self.message.failed else ("ack", self.consumer.ack)
        self.broker.emit_before(hook, self.message)
        settle(self.message)
        self.broker.emit_after(hook, self.message)
        self.free()

    def free(self) -> None:
        self.message, self.begun, self.receipt = None, False, 0

    @property
    def has_sent(self) -> bool:
        """True if acknowledgements were handed over, and are settled."""
        return bool(self.handed) and not self.broker.process.commit.waiting()


class OnServer(Protocol):
    """The model, where the server knows which jobs wait in the queue, and not in ``schedule``."""

    #: Bits of the steps that are delayed.
    later = 0
    queue_is_empty = False

    def may_keep(self, state: State, following: int) -> bool:
        """See Protocol."""
        return self.queue_is_empty and not self.later >> following & 1


class Thread:
    """What a thread of a worker is asked, and gets, when it has acknowledged a job."""

    #: It is free for the next job of a chain.
    free = False
    #: More jobs are about to finish, so it hands over the acknowledgement of a step of a group.
    hurries = False
    #: The job that it is to run next.
    kept: ClassVar[list[Any]] = []

    @classmethod
    def can_run_next(cls, queue_name: str) -> bool:
        """See ``broker.dramatiq_internals``."""
        return cls.free

    @classmethod
    def run_next(cls, message: Any) -> None:
        """See ``broker.dramatiq_internals``."""
        cls.kept.append(message)


class RubyWorker:
    """What the gem does with a payload, as the commands that it sends."""

    def __init__(self, payload: bytes) -> None:
        self.job = json.loads(payload)
        self.stack = self.job.get("workflow_completion_callbacks", [])[::-1]
        #: What it still sends of the continuation that it enqueues.
        self.writes: list[tuple[Any, ...]] = []

    def enqueue(self, number: int) -> list[str]:
        """Prepare the commands of a callback's continuation; the barriers that it makes, in order."""
        barriers: list[tuple[str, int]] = []
        pushes: list[tuple[Any, ...]] = []
        self._start(self.stack[number][1], self.stack[number + 1 :][::-1], 0, barriers, pushes)
        for barrier, value in barriers:
            self.writes += [("SETEX", barrier, 86400, value), ("SETEX", f"{barrier}_ran", 86400, -1)]
        self.writes += pushes
        return [barrier for barrier, _ in barriers]

    def _start(self, node: Any, stack: list[Any], delay: float, barriers: Any, pushes: Any) -> None:
        kind = node["__type__"]
        if kind == "job":
            self._push(node, stack, delay, pushes)
        elif kind == "with_delay":
            self._start(node["task"], stack, delay + node["delay"], barriers, pushes)
        elif kind == "chain":
            first, *rest = node["children"]
            below = stack
            if rest:
                barrier = self._barrier(1, barriers)
                below = [*stack, [barrier, {"__type__": "chain", "children": rest}, False]]
            self._start(first, below, delay, barriers, pushes)
        else:
            barrier = self._barrier(len(node["children"]), barriers)
            for child in node["children"]:
                self._start(child, [*stack, [barrier, None, True]], delay, barriers, pushes)

    def _barrier(self, value: int, barriers: Any) -> str:
        number = len(barriers)
        barrier = f"{self.job['jid'][:8]}-0000-4000-8000-{number:012d}"
        barriers.append((barrier, value))
        return barrier

    def _push(self, node: Any, stack: list[Any], delay: float, pushes: Any) -> None:
        job = {key: value for key, value in node.items() if key != "__type__"}
        job |= {"workflow_run_id": self.job["workflow_run_id"], "created_at": time.time()}
        if stack:
            job["workflow_completion_callbacks"] = stack
        payload = json.dumps(job)
        if delay:
            pushes.append(("ZADD", "schedule", time.time() + delay / 1000, payload))
        else:
            pushes.append(("LPUSH", f"queue:{QUEUE}", payload))


#: Trees that have at least one step in each node; a step may be delayed.
trees: st.SearchStrategy[Tree] = st.recursive(
    st.sampled_from(["now", "now", "now", "later"]),
    lambda inner: st.tuples(st.sampled_from(["chain", "group"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=7,
)

#: Those that matter most come often.
shapes = st.one_of(
    st.sampled_from(
        [
            ("chain", [("group", ["now", "now"]), "now"]),
            ("chain", [("group", [("chain", ["now", "now"]), "now"]), "now"]),
            ("chain", [("group", [("group", ["now", "now"]), "later"]), "now"]),
            ("chain", ["now", ("group", ["now", "now", "now"]), "now"]),
            ("chain", ["now", "now", "now", "now"]),
            ("chain", ["now", "now", "now", "now"]),
        ]
    ),
    trees,
)

which = st.integers(0, 1000)
losses = st.sampled_from(["", "", "", "command", "reply"])


def pick(number: int, found: Sequence[Any]) -> Any:
    return found[number % len(found)]


def is_free(process: Process) -> bool:
    return process.message is None


def is_busy(process: Process) -> bool:
    return process.message is not None


def is_waiting(process: Process) -> bool:
    """It has a job whose actor has not begun."""
    return process.message is not None and not process.begun


def has_begun(process: Process) -> bool:
    return process.begun


class Machine(RuleBasedStateMachine):
    """One run, two Python processes, one plain Ruby worker."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.client: Any = redis.Redis.from_url(self.url)
        self.client.flushall()
        RecordingConnection.sent, RecordingConnection.lose = [], ""
        Thread.free = Thread.hurries = False
        Thread.kept.clear()
        self.processes: list[Process] = []
        self.wrong = True
        self.receipts = 0
        #: Step -> its payload as it was pushed; jid -> step; the model's barriers -> their ids.
        self.payloads: dict[int, bytes] = {}
        self.steps: dict[str, int] = {}
        self.barriers: dict[int, str] = {}
        self.expired: set[int] = set()
        #: Receipt -> the member that has it in flight; members that are dead, or taken for dead next.
        self.owners: dict[int, str] = {}
        self.doomed: list[str] = []
        self.ruby: RubyWorker | None = None
        #: Bits of the steps that Ruby took.
        self.ruby_steps = 0

    # -- the start ------------------------------------------------------------------

    @initialize(shape=shapes)
    def start(self, shape: Tree) -> None:
        self.processes = [Process(self.url), Process(self.url)]
        names: list[str] = []
        later = 0

        def build(node: Tree) -> tuple[Any, Tree]:
            """The workflow, and its tree as the model takes it."""
            if isinstance(node, str):
                nonlocal later
                later |= (node == "later") << len(names)
                names.append(f"s{len(names)}")
                message = self.processes[0].step.message(len(names) - 1)
                return (message if node == "now" else WithDelay(message, 3_600_000)), names[-1]
            kind, children = node
            built = [build(child) for child in children]
            parts = [part for part, _ in built]
            return (Chain if kind == "chain" else Group)(*parts), (kind, [tree for _, tree in built])

        workflow, tree = build(shape)
        self.flow = Flow(tree)
        self.model = OnServer(self.flow, faults=0, kinds=frozenset(), keeps=True, hands_over=True)
        self.model.later = later
        self.gem = Gem(self.flow, faults=0, kinds=frozenset())
        self.state: State = self.model.initial([RUBY_IDLE], 0)
        self.wrong = False
        Workflow(workflow, broker=self.processes[0].broker).run()
        self.state, _ = self.model.start(self.state)

    # -- workers ----------------------------------------------------------------------

    def those(self, condition: Callable[[Process], Any]) -> list[Process]:
        return [process for process in self.processes if condition(process)]

    def can_fetch(self) -> bool:
        return bool(self.those(is_free)) and self.client.llen(f"queue:{QUEUE}") > 0

    @precondition(can_fetch)
    @rule(number=which, lose=losses, begins=st.booleans())
    def fetch(self, number: int, lose: str, begins: bool) -> None:
        process = pick(number, self.those(is_free))
        # If the reply to acknowledgements is lost, they wait, and nobody knows that they were counted.
        RecordingConnection.lose = "" if process.handed else lose
        process.message = next(process.consumer)
        RecordingConnection.lose = ""
        self.note_sent(process)
        assert process.message is not None, "there are jobs, and none was fetched"
        process.members = set(process.broker.process.heartbeat.members)
        step = process.message.args[0]
        self.learn(process.message.payload.raw)
        self.receipts += 1
        process.receipt = self.receipts
        self.owners[process.receipt] = process.message.member
        self.take(step, process.receipt)
        if begins:
            assert process.begin()

    @precondition(can_fetch)
    @rule(number=which, jobs=st.integers(1, 4), lose=losses, hands=st.booleans())
    def work(self, number: int, jobs: int, lose: str, hands: bool) -> None:
        """A process runs some jobs, and nothing befalls it: it keeps the next jobs, or hands over those that ended.

        Parameters:
          lose: What is lost of each acknowledgement.
        """
        process = pick(number, self.those(is_free))
        for _ in range(jobs):
            if process.message is None:
                if not self.can_fetch():
                    break
                self.fetch(self.those(is_free).index(process), "", True)
            if hands and process in self.can_hand_over():
                self.hand_over(self.can_hand_over().index(process))
            else:
                self.finish(self.those(has_begun).index(process), lose, True)

    def take(self, step: int, receipt: int) -> None:
        state = self.state
        flight = tuple(sorted((*state.flight, (receipt, step))))
        self.state = state._replace(queue=without(state.queue, step), flight=flight)

    @precondition(lambda self: self.those(is_waiting))
    @rule(number=which)
    def begin(self, number: int) -> None:
        process = pick(number, self.those(is_waiting))
        in_flight = process.receipt in dict(self.state.flight)
        assert process.begin() == in_flight, "a job begins where, and only where, it is in flight"

    @precondition(lambda self: self.those(has_begun))
    @rule(number=which, lose=losses, keeps=st.booleans())
    def finish(self, number: int, lose: str, keeps: bool) -> None:
        """A job ends; its thread may keep the next one."""
        process = pick(number, self.those(has_begun))
        step, receipt = process.message.args[0], process.receipt
        state = self.state._replace(ended=self.state.ended | 1 << step)
        self.receipts += 1
        self.model.queue_is_empty = not self.client.llen(f"queue:{QUEUE}")
        self.state = state
        reply = self.advance(step, receipt, self.receipts if keeps else 0, process)
        RecordingConnection.lose, Thread.free = lose, keeps
        process.end()
        RecordingConnection.lose, Thread.free = "", False
        assert len(Thread.kept) == reply.startswith("KEPT"), reply
        if Thread.kept:
            process.message, process.receipt = Thread.kept.pop(), self.receipts
            self.owners[process.receipt] = process.message.member
            self.learn(process.message.payload.raw)
            assert process.begin()

    def advance(self, step: int, receipt: int, offered: int, process: Process | None = None) -> str:
        """Let the model acknowledge a step; its last reply.

        Parameters:
          offered: The receipt that is offered for the next job; 0 for none.
          process: Its acknowledgements that are handed over go with the first call.
        """
        reply = "PLAN 0"
        if self.flow.stacks[step] and self.flow.stacks[step][0].kind == "f":
            reply = "PLAN 1"
        while reply.startswith("PLAN"):
            planned = int(reply.split()[1])
            offer = offered if offered and self.model.with_offer(step, planned, ()) else 0
            self.state, reply = self.model.advance(self.state, step, receipt, planned, offer)
            if process is not None:
                self.send_handed(process)
        if reply.startswith("EXPIRED"):
            self.state, _ = self.model.fail(self.state, step, receipt, "dead", 0)
        return reply

    def send_handed(self, process: Process) -> None:
        """Let the model acknowledge the steps that a process has handed over."""
        batches: dict[int, list[tuple[int, int]]] = {}
        for step, receipt in process.handed:
            batches.setdefault(self.flow.stacks[step][0].barrier, []).append((step, receipt))
        process.handed = []
        left: list[tuple[int, int]] = []
        for batch in batches.values():
            self.state, _, those = self.model.advance_group(self.state, tuple(batch))
            left += those
        for step, receipt in left:
            self.advance(step, receipt, 0)

    def note_sent(self, process: Process) -> None:
        """Follow a process that may have sent what was handed over."""
        if process.has_sent:
            self.send_handed(process)

    def can_hand_over(self) -> list[Process]:
        """Processes with a job of a group that has begun."""
        tops = {step: stack[0].kind for step, stack in enumerate(self.flow.stacks) if stack}
        return [process for process in self.those(has_begun) if tops.get(process.message.args[0]) == "n"]

    @precondition(lambda self: self.can_hand_over())
    @rule(number=which)
    def hand_over(self, number: int) -> None:
        """A step of a group ends, and is acknowledged later, with others."""
        process = pick(number, self.can_hand_over())
        step, receipt = process.message.args[0], process.receipt
        Thread.hurries = True
        process.end()
        Thread.hurries = False
        self.state = self.state._replace(ended=self.state.ended | 1 << step)
        process.handed.append((step, receipt))
        self.note_sent(process)

    @precondition(lambda self: self.those(has_begun))
    @rule(number=which, last=st.booleans())
    def fail(self, number: int, last: bool) -> None:
        process = pick(number, self.those(has_begun))
        self.receipts += 1
        where, step = "dead" if last else "retry", process.message.args[0]
        self.state, _ = self.model.fail(self.state, step, process.receipt, where, self.receipts)
        process.end(Hopeless("for good") if last else ValueError("not now"))
        self.note_sent(process)

    @precondition(lambda self: self.those(is_waiting))
    @rule(number=which)
    def requeue(self, number: int) -> None:
        """A worker that shuts down gives back what it has not run."""
        process = pick(number, self.those(is_waiting))
        step = process.message.args[0]
        self.state, _ = self.model.recover(self.state, step, process.receipt)
        process.consumer.requeue([process.message])
        process.free()

    # -- what befalls them --------------------------------------------------------------

    @precondition(lambda self: self.those(is_busy))
    @rule(number=which)
    def crash(self, number: int) -> None:
        """A process ends and leaves behind what it has in flight; another starts."""
        process = pick(number, self.those(is_busy))
        self.settle_doubles(process)
        self.doomed += sorted(process.members)
        process.broker.process.heartbeat.stop()
        self.note_sent(process)
        process.broker.connection.close()
        self.processes[self.processes.index(process)] = Process(self.url)

    @precondition(lambda self: self.those(is_busy))
    @rule(number=which, ends=st.booleans())
    def suspect(self, number: int, ends: bool) -> None:
        """A process that lives is silent for too long; it goes on as if nothing had happened."""
        process = pick(number, self.those(is_busy))
        self.settle_doubles(process)
        self.doomed += sorted(process.members)
        self.recover_with(next(p for p in self.processes if p is not process))
        if ends and process.begun:
            self.finish(self.those(has_begun).index(process), "", False)

    @rule(number=which)
    def recover(self, number: int) -> None:
        """A process beats: it recovers who is silent, and looks twice for jobs that none of its threads knows."""
        self.recover_with(self.processes[number % len(self.processes)])

    def recover_with(self, process: Process) -> None:
        broker = process.broker
        self.beat(process)
        for member in self.doomed:
            self.client.zadd("swf:workers", {member: time.time() - 3600}, xx=True)
            broker.process.heartbeat.beat()
            # How often a job was recovered has tests of its own.
            for key in self.client.scan_iter("swf:recovered:*"):
                self.client.delete(key)
        broker.process.heartbeat.beat()
        for receipt, step in self.state.flight:
            if self.owners[receipt] in self.doomed:
                self.state, _ = self.model.recover(self.state, step, receipt)
        self.doomed = []

    def settle_doubles(self, process: Process) -> None:
        """Send what was handed over, if a step is in flight here twice: its recovery would count as two."""
        steps = [step for step, _ in process.handed]
        if process.message is not None:
            steps.append(process.message.args[0])
        if len(set(steps)) < len(steps):
            self.beat(process)

    def beat(self, process: Process) -> None:
        """Send what was handed over, as a heartbeat does (``heartbeat.tasks``)."""
        process.broker.process.commit.flush()
        self.note_sent(process)

    @rule(number=which, recent=st.booleans())
    def deliver_again(self, number: int, recent: bool) -> None:
        """The network delivers a command once more, one of the last or any that was ever sent: nothing changes."""
        among = RecordingConnection.sent[-3:] if recent else RecordingConnection.sent
        self.client.execute_command(*pick(number, among))

    # -- what comes from outside -------------------------------------------------------------

    def pythons(self) -> list[int]:
        """The steps that Ruby has not taken."""
        return [step for step in sorted(self.payloads) if not self.ruby_steps >> step & 1]

    @precondition(lambda self: self.pythons())
    @rule(number=which, next_one=st.booleans())
    def duplicate(self, number: int, next_one: bool) -> None:
        """A job is delivered twice.  Not one of Ruby's: the plain gem counts it twice."""
        step = pick(number, self.pythons())
        push = self.client.rpush if next_one else self.client.lpush
        push(f"queue:{QUEUE}", self.payloads[step])
        queue = tuple(sorted((*self.state.queue, step)))
        self.state = self.state._replace(queue=queue, jobs=self.state.jobs + 1)

    def can_expire(self) -> list[int]:
        """Barriers.  Not those that a Ruby worker is about to count; one a run, or little else is seen."""
        if self.expired or (self.ruby is not None and self.ruby.writes):
            return []
        ruby = self.state.workers[0][1]
        counted = {callback.barrier for callback in self.flow.stacks[ruby]} if ruby != NO_STEP else set()
        return sorted(set(self.barriers) - counted)

    @precondition(lambda self: self.can_expire())
    @rule(number=which, whole=st.booleans())
    def expire(self, number: int, whole: bool) -> None:
        """A barrier expires, or its second key a moment before it."""
        barrier = pick(number, self.can_expire())
        self.expired.add(barrier)
        name = self.barriers[barrier]
        if whole:
            self.client.delete(name, f"{name}_ran", f"{name}:u")
            self.state = self.model.set_barrier(self.state, barrier, NO_BARRIER)
        else:
            self.client.delete(f"{name}_ran")
            value, _, units = self.state.barriers[barrier]
            self.state = self.model.set_barrier(self.state, barrier, (value, None, units))

    @precondition(lambda self: self.client.zcard("schedule") + self.client.zcard("retry"))
    @rule(number=which)
    def promote(self, number: int) -> None:
        """All that waits in schedule and retry is due."""
        for name in ("schedule", "retry"):
            for member in self.client.zrange(name, 0, -1):
                self.client.zadd(name, {member: 1.0 + json.loads(member)["args"][0]})
        self.processes[number % len(self.processes)].broker.process.poller.poll()
        for step, failure in self.state.retry:
            self.state = self.model.promote(self.state, step, failure)

    @precondition(lambda self: self.client.zcard("dead"))
    @rule(number=which)
    def retry_by_hand(self, number: int) -> None:
        """As Sidekiq's Web UI does: out of dead, and pushed."""
        member = pick(number, self.client.zrange("dead", 0, -1))
        job = json.loads(member)
        if "retry_count" in job:
            job["retry_count"] -= 1
        self.client.zrem("dead", member)
        self.client.sadd("queues", QUEUE)
        self.client.lpush(f"queue:{QUEUE}", json.dumps(job))
        step = job["args"][0]
        queue = tuple(sorted((*self.state.queue, step)))
        self.state = self.state._replace(dead=without(self.state.dead, step), queue=queue)

    # -- plain Ruby --------------------------------------------------------------------------

    def for_ruby(self) -> list[tuple[int, bytes]]:
        """Jobs that are nowhere else, since the gem does not know what it has counted, with all their barriers."""
        if self.ruby is not None:
            return []
        state, found = self.state, []
        places = [*state.queue, *state.dead, *(s for _, s in state.flight), *(s for s, _ in state.retry)]
        for payload in self.client.lrange(f"queue:{QUEUE}", 0, -1):
            step = json.loads(payload)["args"][0]
            gone = {callback.barrier for callback in self.flow.stacks[step]} & self.expired
            if places.count(step) == 1 and not state.counted >> step & 1 and not gone:
                found.append((step, payload))
        return found

    @precondition(lambda self: self.for_ruby())
    @rule(number=which)
    def ruby_takes(self, number: int) -> None:
        """A plain Ruby worker takes a job."""
        step, payload = pick(number, self.for_ruby())
        self.client.lrem(f"queue:{QUEUE}", 1, payload)
        self.ruby = RubyWorker(payload)
        self.ruby_steps |= 1 << step
        taken = self.state._replace(queue=without(self.state.queue, step))
        self.state = self.model.set_worker(taken, 0, ("ruby run", step, 0, 0, ()))

    @precondition(lambda self: self.ruby is not None)
    @rule()
    def ruby_goes_on(self) -> None:
        """The Ruby worker sends its next command."""
        ruby = self.ruby
        assert ruby is not None
        what, _, _, number, _ = self.state.workers[0]
        ((_, after),) = self.gem.of_worker(self.state, 0, self.state.workers[0])
        if what == "ruby decr":
            self.client.decr(ruby.stack[number][0])
        elif what == "ruby incrby":
            self.client.incrby(f"{ruby.stack[number][0]}_ran", 1)
            if after.workers[0][0].startswith("ruby plan"):
                made = self.flow.plans[int(after.workers[0][0].split()[-1])].barriers
                names = ruby.enqueue(number)
                self.barriers.update(zip((barrier for barrier, _ in made), names, strict=True))
        elif what.startswith("ruby plan"):
            self.client.execute_command(*ruby.writes.pop(0))
        self.state = after
        if after.workers[0] == RUBY_IDLE:
            assert not ruby.writes
            self.ruby = None

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def the_server_and_the_model_agree(self) -> None:
        if not self.processes or self.wrong:
            return
        self.wrong = True
        state = self.state
        assert state.problem == ""
        assert self.model.places(state) == ""
        assert self.places() == {
            "queue": list(state.queue),
            "flight": sorted(step for _, step in state.flight),
            "retry": sorted(step for step, _ in state.retry),
            "dead": list(state.dead),
        }
        for barrier, name in self.barriers.items():
            assert self.barrier(name) == state.barriers[barrier], self.flow.labels[barrier]
        for key in self.client.keys():
            assert PERMANENT.fullmatch(key.decode()) or self.client.ttl(key) > 0, key
        self.wrong = False

    def places(self) -> dict[str, list[int]]:
        """The steps in each place, as often as they are there."""
        found: dict[str, list[bytes]] = {name: list(self.client.zrange(name, 0, -1)) for name in ("retry", "dead")}
        found["queue"] = [*self.client.lrange(f"queue:{QUEUE}", 0, -1), *self.client.zrange("schedule", 0, -1)]
        found["flight"] = []
        for key in self.client.keys("swf:inflight:*"):
            found["flight"] += self.client.hvals(key)
        for payloads in found.values():
            for payload in payloads:
                self.learn(payload)
        return {
            name: sorted(json.loads(payload)["args"][0] for payload in payloads) for name, payloads in found.items()
        }

    def learn(self, payload: bytes) -> None:
        job = json.loads(payload)
        step = job["args"][0]
        assert self.steps.setdefault(job["jid"], step) == step
        if step not in self.payloads:
            self.payloads[step] = payload
            stack = job.get("workflow_completion_callbacks", [])
            assert len(stack) == len(self.flow.stacks[step])
            for callback, (name, _, _) in zip(self.flow.stacks[step], reversed(stack)):
                assert self.barriers.setdefault(callback.barrier, name) == name

    def barrier(self, name: str) -> tuple[int | None, int | None, int]:
        value, ran = self.client.mget(name, f"{name}_ran")
        units = 0
        ids = {id: barrier for barrier, id in self.barriers.items()}
        for unit in self.client.smembers(f"{name}:u"):
            text = unit.decode()
            units |= 1 << self.steps[text] if text in self.steps else self.flow.unit(ids[text])
        return (None if value is None else int(value), None if ran is None else int(ran), units)

    def teardown(self) -> None:
        """Let all workers finish; then each step is done, or one that it waits for is in dead."""
        try:
            if self.processes and not self.wrong:
                self.finish_all()
        finally:
            for process in self.processes:
                process.broker.close()
            self.client.close()

    def finish_all(self) -> None:
        for _ in range(1000):
            while self.ruby is not None:
                self.ruby_goes_on()
            self.promote(0)
            self.recover(0)
            self.recover(1)
            if not self.state.queue and not any(p.message for p in self.processes):
                break
            while self.can_fetch():
                self.fetch(0, "", True)
            while self.those(is_waiting):
                self.begin(0)
            while self.those(has_begun):
                self.finish(0, "reply" if self.receipts % 3 == 2 else "", True)
            self.the_server_and_the_model_agree()
        self.the_server_and_the_model_agree()
        assert self.model.ending(self.state) in ("done", "dead")


def test_the_package_does_what_the_model_says(
    redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("CRITICAL")
    monkeypatch.setattr(next_job, "can_run_next", Thread.can_run_next)
    monkeypatch.setattr(consumer, "run_next", Thread.run_next)
    monkeypatch.setattr(InFlight, "under_load", property(lambda held: Thread.hurries))
    monkeypatch.setattr(ack_batch, "BATCH_TIME", 3600)

    with redis.Redis.from_url(redis_url) as client:
        # Otherwise a script is sent once more by the example that uses it first, and not when that is replayed.
        for script in scripts.ALL:
            client.script_load(script.source)

    class OnThisServer(Machine):
        url = redis_url

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            deadline=None,
            derandomize=not EXAMPLES,
            max_examples=EXAMPLES or examples(100),
            # What fails here fails fast; a longer run has the time to make it small.
            phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
            report_multiple_bugs=False,
            database=None,
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
