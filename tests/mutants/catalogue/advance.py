"""The advance: ``advance.lua``."""

from __future__ import annotations

from ..mutant import in_file
from .tests import MINE, RECOVERY, RULES, TTL, WORKFLOW, expires, refuses, twice

mutant = in_file("store/lua/advance.lua")

ADVANCE = [
    # -- the gate
    mutant(
        "advance-no-gate-check",
        "A job that has left flight is advanced again: by a second sending, or by a zombie.",
        "if redis.call('HEXISTS', in_flight, receipt) == 0 then return {'GONE'} end\n",
        "",
        RECOVERY + "test_a_zombie_does_not_advance",
        twice("advance"),
    ),
    mutant(
        "advance-no-hdel",
        "A finished job stays in flight: it is recovered, and runs again.",
        "redis.call('HDEL', in_flight, receipt)\n",
        "",
        WORKFLOW + "test_a_job_acknowledged_twice_advances_once",
        twice("advance"),
    ),
    mutant(
        "advance-writes-before-reading",
        "The job leaves flight before the types were seen: with a wrong one, it is lost.",
        "local fields, a = read_fields(5)\n",
        "redis.call('HDEL', in_flight, receipt)\nlocal fields, a = read_fields(5)\n",
        refuses("advance", "queues"),
    ),
    mutant(
        "advance-hdel-not-first",
        "The first write is one that a full Redis refuses: the step cannot be advanced.",
        "redis.call('HDEL', in_flight, receipt)\nif writes_fields then",
        "redis.call('SET', 'swf:run:x', 1, 'EX', 1)\nredis.call('HDEL', in_flight, receipt)\nif writes_fields then",
        RULES + "test_a_full_redis_lets_jobs_move[advance]",
    ),
    # -- types
    mutant(
        "advance-type-in-flight",
        "An in-flight key of another type ends in an error of Lua, not in a named one.",
        "if not type_is(in_flight, 'hash') then return {'TYPE', in_flight} end\n",
        "",
        refuses("advance", MINE),
    ),
    mutant(
        "advance-type-memory",
        "A memory of another type stops the script after the job has left flight: it is lost.",
        "if writes_fields and not type_is(memory, 'hash') then return {'TYPE', memory} end\n",
        "",
        refuses("advance", "swf:mem:run"),
    ),
    mutant(
        "advance-type-of-the-plan",
        "What read_plan found wrong is not said: the script goes on without the continuation.",
        "  if not plan then return wrong end\n",
        "",
        refuses("advance", "queue:next"),
    ),
    # -- barriers
    mutant(
        "advance-without-the-plan",
        "The last member of a group is done without its continuation: the run is lost.",
        "if fires and tonumber(ARGV[a]) ~= walked.fire then return {'PLAN', walked.fire} end\n",
        "",
        WORKFLOW + "test_delivered_twice_a_job_of_a_group_counts_once",
    ),
    mutant(
        "advance-plan-not-written",
        "The continuation is never pushed.",
        "if plan then write_plan(plan) end\n",
        "",
        WORKFLOW + "test_a_job_acknowledged_twice_advances_once",
    ),
    # -- what lives how long
    mutant(
        "advance-memory-without-ttl",
        "The memory of each run stays for ever.",
        "    redis.call('EXPIRE', memory, math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory)))\n",
        "",
        expires("advance_member"),
    ),
    mutant(
        "advance-memory-forgets-extend-ttl",
        "What extend_ttl asked for does not hold after the end.",
        "math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory))",
        "wanted",
        TTL + "test_what_was_asked_for_holds_after_the_end",
    ),
    mutant(
        "advance-memory-expires-before-the-barriers",
        "The memory expires while steps wait for their retries.",
        "  if not over then wanted = math.max(wanted, ttl) end\n",
        "",
        TTL + "test_a_step_that_writes_nothing_keeps_the_memory_alive",
    ),
    mutant(
        "advance-memory-expires-before-a-delay",
        "The memory expires before a sibling with a long delay starts.",
        "  if waits then wanted = math.max(wanted, redis.call('TTL', KEYS[2 + 3 * walked.n])) end\n",
        "",
        TTL + "test_a_sibling_with_a_long_delay_keeps_the_memory_alive",
    ),
    mutant(
        "advance-memory-stays-after-the-end",
        "The memory of a run that is over lives as long as if it waited.",
        "  local over = not waits and not fires\n",
        "  local over = false\n",
        TTL + "test_after_the_end_the_memory_lives_for_its_own_ttl",
    ),
]
