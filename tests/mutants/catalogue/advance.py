"""The advance: ``advance.lua``."""

from __future__ import annotations

from ..mutant import in_file
from .tests import GROUP, INNER, MINE, NEXT, RECOVERY, RULES, TTL, WORKFLOW, expires, keeps, refuses, twice

mutant = in_file("store/lua/advance.lua")
memory = in_file("store/lua/_memory.lua")
group = in_file("store/lua/advance_group.lua")

ADVANCE = [
    # -- the gate
    mutant(
        "advance-no-gate-check",
        "A job that has left flight is advanced again: by a second sending, or by a zombie.",
        "if taken == 0 then return gone() end\n",
        "",
        RECOVERY + "test_a_zombie_does_not_advance",
        twice("advance"),
    ),
    mutant(
        "advance-no-hdel",
        "A finished job stays in flight: it is recovered, and runs again.",
        "taken, wrong = checked('HDEL', in_flight, receipt)\n",
        "taken, wrong = checked('HEXISTS', in_flight, receipt)\n",
        WORKFLOW + "test_a_job_acknowledged_twice_advances_once",
        twice("advance"),
    ),
    mutant(
        "advance-writes-before-reading",
        "The job leaves flight before the types were seen: with a wrong one, it is lost.",
        "local fields, a = read_fields(7)\n",
        "redis.call('HDEL', in_flight, receipt)\nlocal fields, a = read_fields(7)\n",
        refuses("advance", "queues"),
    ),
    mutant(
        "advance-hdel-not-first",
        "The first write is one that a full Redis refuses: the step cannot be advanced.",
        "taken, wrong = checked('HDEL', in_flight, receipt)\n",
        "redis.call('SET', 'swf:run:x', 1, 'EX', 1)\ntaken, wrong = checked('HDEL', in_flight, receipt)\n",
        RULES + "test_a_full_redis_lets_jobs_move[advance]",
    ),
    mutant(
        "advance-refuses-what-is-gone",
        "A second sending is refused for the callback that the first one fired: its plan is made again.",
        "  return found == 1 and reply or gone()\n",
        "  return reply\n",
        RULES + "test_a_refused_step_that_is_gone_needs_nothing",
    ),
    # -- the next job
    mutant(
        "advance-kept-is-forgotten",
        "The reply is lost, and the job that was kept waits until the next beats put it back.",
        "  return kept and {'KEPT', kept} or {'GONE'}\n",
        "  return {'GONE'}\n",
        NEXT + "test_sent_again_it_gives_the_job_that_was_kept[group]",
        twice("advance_kept"),
    ),
    mutant(
        "advance-kept-is-not-named",
        "The worker is told that the job was pushed: no thread runs it until the next beats.",
        "return {plan and plan.kept and 'KEPT' or 'DONE'}\n",
        "return {'DONE'}\n",
        NEXT + "test_the_next_job_is_in_flight[group]",
    ),
    # -- types
    mutant(
        "advance-type-in-flight",
        "An in-flight key of another type counts as one that holds the job: the error of Lua is not named.",
        "if wrong then return wrong end\nif taken == 0",
        "if taken == 0",
        refuses("advance", MINE),
    ),
    mutant(
        "advance-type-memory",
        "A memory of another type stops the script after the job has left flight: it is lost.",
        "  if not type_is(memory, 'hash') then return refuse({'TYPE', memory}) end\n",
        "",
        refuses("advance", "swf:mem:run"),
    ),
    mutant(
        "advance-type-of-the-plan",
        "What read_plan found wrong is not said: the script goes on without the continuation.",
        "  if not plan then return refuse(wrong) end\n",
        "",
        refuses("advance", "queue:next"),
    ),
    # -- barriers
    mutant(
        "advance-without-the-plan",
        "The last member of a group is done without its continuation: the run is lost.",
        "if fires and tonumber(ARGV[a]) ~= walked.fire then return refuse({'PLAN', walked.fire}) end\n",
        "",
        WORKFLOW + "test_delivered_twice_a_job_of_a_group_counts_once",
    ),
    mutant(
        "advance-plan-not-written",
        "The continuation is never pushed.",
        "if plan then write_plan(plan) end\n",
        "",
        NEXT + "test_without_an_offer_it_is_pushed[group]",
    ),
    # -- what lives how long
    memory(
        "advance-memory-without-ttl",
        "The memory of each run stays for ever.",
        "    redis.call('EXPIRE', memory, math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory)))\n",
        "",
        expires("advance_member"),
    ),
    memory(
        "advance-memory-forgets-extend-ttl",
        "What extend_ttl asked for does not hold after the end.",
        "math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory))",
        "wanted",
        TTL + "test_what_was_asked_for_holds_after_the_end",
    ),
    memory(
        "advance-memory-expires-before-the-barriers",
        "The memory expires while steps wait for their retries.",
        "  if not over then wanted = math.max(wanted, ttl) end\n",
        "",
        TTL + "test_a_step_that_writes_nothing_keeps_the_memory_alive",
    ),
    memory(
        "advance-memory-expires-before-a-delay",
        "The memory expires before a sibling with a long delay starts.",
        "    wanted = math.max(wanted, redis.call('TTL', lowest))\n",
        "",
        TTL + "test_a_sibling_with_a_long_delay_keeps_the_memory_alive",
    ),
    memory(
        "advance-memory-stays-after-the-end",
        "The memory of a run that is over lives as long as if it waited.",
        "  local waits, over = walked.released < walked.n, is_over(walked, fires)\n",
        "  local waits, over = walked.released < walked.n, false\n",
        TTL + "test_after_the_end_the_memory_lives_for_its_own_ttl",
    ),
    mutant(
        "advance-memory-not-kept",
        "The memory of a run expires while it goes on.",
        "if walked.new then keep_memory(memory, memory_ttl, ttl, walked, fires) end\n",
        "",
        expires("advance_member"),
    ),
    # -- steps of a group, together
    group(
        "group-no-gate",
        "A step that another worker has recovered counts: what follows starts early.",
        "    if taken == 1 and new then\n",
        "    if new then\n",
        GROUP + "test_a_step_that_is_recovered_elsewhere_does_not_count",
    ),
    group(
        "group-releases",
        "The last step of a group is done without its continuation: the run is lost.",
        "  if new and not late and value - #counted <= 1 then\n",
        "  if false then\n",
        GROUP + "test_the_step_that_releases_is_left[2]",
    ),
    group(
        "group-counts-again-in-one-call",
        "A step that is delivered twice at once counts twice: what follows starts early.",
        "      known[unit] = true\n",
        "",
        GROUP + "test_a_step_that_comes_twice_counts_once",
    ),
    group(
        "group-counts-again",
        "A step that is delivered twice counts twice: what follows starts early.",
        "before[i] == 0 and ",
        "",
        GROUP + "test_a_step_that_comes_twice_counts_once",
    ),
    group(
        "group-counts-after-the-release",
        "A step that comes late counts on a barrier that has released.",
        "(marker == -1 or late) and ",
        "",
        GROUP + "test_after_the_release_steps_leave_flight_only",
    ),
    group(
        "group-forgets-outputs",
        "The output of a step is lost.",
        "    if taken == 1 and (new or cancelled) then write_fields(memory, outputs[i]) end\n",
        "",
        GROUP + "test_outputs_are_written_and_live_with_the_run",
    ),
    group(
        "group-memory-without-ttl",
        "The memory of a run stays for ever.",
        "  keep_memory(memory, memory_ttl, ttl, walked, false)\n",
        "",
        expires("advance_group"),
    ),
    group(
        "group-barriers-expire",
        "The barriers of a long group expire while it runs.",
        "  prolong_waiting(walked, ttl)\n",
        "",
        GROUP + "test_waiting_barriers_live_on",
    ),
    group(
        "group-type-memory",
        "A memory of another type stops the script after jobs have left flight: they are lost.",
        "if has_fields and not type_is(memory, 'hash') then return {'TYPE', memory} end\n",
        "",
        refuses("advance_group", "swf:mem:run"),
    ),
    group(
        "group-without-rights",
        "The members of a group are lost if their worker may not count them.",
        "wrong = denied('DECRBY', barrier, '1') or denied('SADD', barrier .. ':u', '')\n",
        "wrong = nil\n",
        keeps("advance_group", "decrby"),
        keeps("advance_group", "sadd"),
    ),
    group(
        "group-without-rights-to-remember",
        "The members of a group are lost if their worker may not write their outputs.",
        "if not wrong and has_fields then wrong = denied('HSET', memory, '', '') end\n",
        "",
        keeps("advance_group", "hset"),
    ),
    mutant(
        "advance-without-rights-to-remember",
        "A step is lost if its worker may not write its output.",
        "  wrong = denied('HSET', memory, '', '')\n  if wrong then return refuse(wrong) end\n",
        "",
        keeps("advance", "hset"),
    ),
    group(
        "group-type-units",
        "A set of another type stops the script after jobs have left flight: they are lost.",
        "before, wrong = checked('SMISMEMBER', barrier .. ':u', unpack(units))\nif wrong then return wrong end\n",
        "before = {0, 0, 0, 0}\n",
        refuses("advance_group", f"{INNER}:u"),
    ),
    group(
        "group-type-in-flight",
        "An in-flight key of another type ends in an error of Lua, not in a named one.",
        "    if wrong then return wrong end\n    if taken",
        "    if taken",
        refuses("advance_group", MINE),
    ),
    group(
        "group-barrier-gone",
        "A barrier that is gone is counted: its key comes back without a TTL, and the run never goes on.",
        "if wrong then return wrong end\nlocal late",
        "value, marker = value or 9, marker or -1\nlocal late",
        GROUP + "test_a_barrier_that_is_gone_writes_nothing[]",
    ),
]
