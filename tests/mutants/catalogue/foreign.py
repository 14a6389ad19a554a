"""Steps on other brokers, and barriers of the application's own: ``count``, ``fired``, ``bury`` and ``release``."""

from __future__ import annotations

from ..mutant import in_file
from .tests import COUNTED, FAILURES, MINE, PLUGGABLE, RULES, expires, refuses, twice

count = in_file("store/lua/count.lua")
fired = in_file("store/lua/fired.lua")
bury = in_file("store/lua/bury.lua")
release = in_file("store/lua/release.lua")

TWICE = FAILURES + "test_a_step_that_comes_twice_counts_once[redis]"

FOREIGN = [
    count(
        "count-type-memory",
        "A memory of another type ends in an error of Lua.",
        "if writes_fields and not type_is(memory, 'hash') then return {'TYPE', memory} end\n",
        "",
        refuses("count", "swf:mem:run"),
    ),
    count(
        "count-type-of-the-plan",
        "What read_plan found wrong is not said: the step counts, and what follows is lost.",
        "  if not plan then return wrong end\n",
        "",
        refuses("count", "queue:next"),
    ),
    count(
        "count-fires-and-counts-again",
        "Asked again, it writes the plan again.",
        "if walked.again then return {'FIRE'} end\n",
        "",
        twice("count"),
    ),
    count(
        "count-without-the-plan",
        "The last member of a group is done without its continuation.",
        "if fires and tonumber(ARGV[a]) ~= walked.fire then return {'PLAN', walked.fire} end\n",
        "",
        COUNTED,
    ),
    count(
        "count-plan-not-written",
        "The barriers of the continuation are never made.",
        "if plan then write_plan(plan) end\n",
        "",
        COUNTED,
    ),
    count(
        "count-says-done",
        "The caller is not told to enqueue what follows.",
        "if elsewhere then return {'FIRE'} end\n",
        "",
        COUNTED,
    ),
    count(
        "count-releaser-not-noted",
        "After a crash nobody knows that the continuation was not enqueued.",
        "  if elsewhere then redis.call('SETEX', count.barrier .. ':f', kept, count.unit) end\n",
        "",
        twice("count"),
    ),
    count(
        "count-releaser-kept-for-a-day-only",
        "A broker that is away for longer loses the continuation.",
        "local kept = elsewhere and ttl or RELEASED_TTL\n",
        "local kept = RELEASED_TTL\n",
        RULES + "test_what_is_still_to_be_enqueued_lives_as_long_as_what_waits",
    ),
    count(
        "count-memory-without-ttl",
        "The memory of each run stays for ever.",
        "if memory ~= '' then prolong(memory, memory_ttl) end\n",
        "",
        expires("count"),
    ),
    fired(
        "fired-not-noted",
        "A duplicate of the releaser starts the continuation again.",
        "  redis.call('SET', KEYS[i + 2], '', 'EX', ARGV[1])\n",
        "",
        twice("fired"),
    ),
    fired(
        "fired-barrier-comes-back",
        "Of a barrier that is gone, an empty marker is made, and the next run of that id is never counted.",
        "if not known or known == '' then return 0 end\n",
        "if known == '' then return 0 end\n",
        RULES + "test_a_barrier_that_is_gone_is_not_marked",
    ),
    bury(
        "bury-type",
        "A dead of another type ends in an error of Lua.",
        "if not type_is(dead, 'zset') then return {'TYPE', dead} end\n",
        "",
        refuses("bury", "dead"),
    ),
    bury(
        "bury-barriers-expire",
        "The run of a dead step cannot go on when it is retried after three weeks.",
        "for i = 3, 2 + kept do prolong(KEYS[i], tonumber(ARGV[5])) end\n",
        "",
        RULES + "test_waiting_barriers_live_on[bury]",
    ),
    bury(
        "bury-trims-no-old-ones",
        "Jobs of half a year ago stay in dead.",
        "redis.call('ZREMRANGEBYSCORE', dead, '-inf', ARGV[3])\n",
        "",
        RULES + "test_old_jobs_leave_dead[bury]",
    ),
    release(
        "release-no-gate-check",
        "A zombie pushes what follows.",
        "if redis.call('HEXISTS', in_flight, receipt) == 0 then return {'GONE'} end\n",
        "",
        twice("release"),
    ),
    release(
        "release-no-hdel",
        "A finished job stays in flight.",
        "redis.call('HDEL', in_flight, receipt)\n",
        "",
        twice("release"),
    ),
    release(
        "release-type-in-flight",
        "An in-flight key of another type ends in an error of Lua.",
        "if not type_is(in_flight, 'hash') then return {'TYPE', in_flight} end\n",
        "",
        refuses("release", MINE),
    ),
    release(
        "release-type-memory",
        "A memory of another type stops the script after the job has left flight.",
        "if fields.n > 0 and not type_is(memory, 'hash') then return {'TYPE', memory} end\n",
        "",
        refuses("release", "swf:mem:run"),
    ),
    release(
        "release-type-of-the-plan",
        "What read_plan found wrong is not said: what follows is lost.",
        "  if not plan then return wrong end\n",
        "",
        refuses("release", "queue:next"),
    ),
    release(
        "release-pushes-again",
        "A job that comes twice pushes what follows twice.",
        "if marker ~= '' and not cancelled and redis.call('EXISTS', marker) == 0 then",
        "if marker ~= '' and not cancelled then",
        PLUGGABLE + "test_a_job_that_comes_twice_pushes_once",
    ),
    release(
        "release-marker-not-set",
        "Nobody knows that what follows was pushed.",
        "  redis.call('SET', marker, '1', 'EX', marker_ttl)\n",
        "",
        PLUGGABLE + "test_a_job_that_comes_twice_pushes_once",
    ),
    release(
        "release-marker-without-ttl",
        "The marker stays for ever.",
        "  redis.call('SET', marker, '1', 'EX', marker_ttl)\n",
        "  redis.call('SET', marker, '1')\n",
        expires("release"),
    ),
    release(
        "release-memory-without-ttl",
        "The memory of each run stays for ever.",
        "if memory ~= '' then prolong(memory, memory_ttl) end\n",
        "",
        expires("release"),
    ),
]
