"""The short way past a step of a chain: ``_chain_step.lua``."""

from __future__ import annotations

from ..mutant import in_file
from .tests import keeps

step = in_file("store/lua/_chain_step.lua")

SAME = "integration/test_chain_step.py::test_it_does_what_the_long_way_does"
TAKEN = "integration/test_chain_step.py::test_it_is_taken"

CHAIN_STEP = [
    step(
        "step-of-any-callback",
        "The barrier of a group is released by its first member.",
        "ARGV[a] ~= 'f' or ",
        "",
        f"{SAME}[of-a-group-with-a-plan]",
    ),
    step(
        "step-with-another-plan",
        "The plan of another callback is written.",
        "ARGV[a + 1] ~= '1' or ",
        "",
        f"{SAME}[another-plan]",
    ),
    step(
        "step-drops-the-rest-of-a-plan",
        "A delayed job of the plan is lost.",
        "#ARGV ~= a + 5 + n or ",
        "",
        f"{SAME}[also-delayed]",
    ),
    step(
        "step-writes-a-barrier-of-a-group",
        "A group waits for one member only.",
        " or n == 2 and ARGV[a + 4] ~= '1'",
        "",
        f"{SAME}[released-barrier]",
    ),
    step(
        "step-many-fields",
        "A large output cannot be written.",
        " or fields > 100",
        "",
        f"{SAME}[many-outputs]",
    ),
    step(
        "step-counts-again",
        "A step that is delivered twice starts the next step twice.",
        " or found[2] ~= '-1'",
        "",
        f"{SAME}[usual]",
    ),
    step(
        "step-without-a-barrier",
        "A barrier that waits for others, or has expired, is released.",
        "found[1] ~= '1' or ",
        "",
        f"{SAME}[usual]",
    ),
    step(
        "step-type-queue",
        "With a queue of another type the next step is lost.",
        " or type(length) ~= 'number'",
        "",
        f"{SAME}[pushed]",
    ),
    step(
        "step-overtakes",
        "The steps of a long chain overtake all jobs of their queue.",
        "keep ~= '' and length == 0 and",
        "keep ~= '' and",
        f"{SAME}[usual]",
    ),
    step(
        "step-of-a-paused-queue",
        "A chain goes on although its queue is paused.",
        " and pcall('SISMEMBER', 'paused', name) ~= 1",
        "",
        f"{SAME}[usual]",
    ),
    step(
        "step-queue-unknown",
        "Sidekiq's Web UI does not know the queue.",
        "  if not kept and pcall('SISMEMBER', 'queues', name) ~= 1 then return end\n",
        "",
        f"{SAME}[pushed]",
    ),
    step(
        "step-memory-expires",
        "The memory of a run expires while the run moves.",
        "    if left ~= -2 and left < math.max(tonumber(ARGV[3]), tonumber(ARGV[4])) - SLACK then return end\n",
        "",
        f"{SAME}[usual]",
    ),
    step(
        "step-type-memory",
        "A memory of another type stops the script after the step has left flight: it is lost.",
        "    if fields > 0 and call('TYPE', memory).ok ~= 'hash' then return end\n",
        "",
        f"{SAME}[output]",
    ),
    step(
        "step-without-rights",
        "A step is lost if its worker loses the right to write the next one.",
        "    if kept and not may('HSET', in_flight, keep, '') or not kept and not may('LPUSH', list, '') then return end\n",
        "",
        keeps("chain_step", "hset"),
        keeps("chain_step_pushed", "lpush"),
    ),
    step(
        "step-without-rights-to-release",
        "A step is lost if its worker may not call SETEX.",
        "not may('SETEX', barrier, '1', '') or ",
        "",
        keeps("chain_step", "setex"),
    ),
    step(
        "step-no-gate-check",
        "A job that has left flight is advanced again: by a second sending, or by a zombie.",
        "  if pcall('HDEL', in_flight, ARGV[1]) ~= 1 then return end\n",
        "  pcall('HDEL', in_flight, ARGV[1])\n",
        f"{SAME}[usual]",
    ),
    step(
        "step-no-output",
        "What a step returns is not kept.",
        "  if fields > 0 then call('HSET', memory, unpack(ARGV, 8, a - 1)) end\n",
        "",
        f"{SAME}[output]",
    ),
    step(
        "step-marker-stays-open",
        "A late duplicate counts a released barrier again.",
        "  call('SETEX', ran, RELEASED_TTL, '0')\n",
        "",
        f"{SAME}[usual]",
    ),
    step(
        "step-is-not-taken",
        "Each step of a chain takes the long way.",
        "  if ARGV[a] ~= 'f'",
        "  if true or ARGV[a] ~= 'f'",
        f"{TAKEN}[usual]",
    ),
]
