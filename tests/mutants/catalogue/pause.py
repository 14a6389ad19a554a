"""Pauses of runs: in the scripts, at the start of a step, and the search for its jobs."""

from __future__ import annotations

from ..mutant import in_file

PAUSE = "integration/test_pause_run.py::"
NEXT = PAUSE + "test_the_next_steps_are_parked"
FULL = PAUSE + "test_a_full_redis_takes_it"
FLIGHT = PAUSE + "test_a_job_in_flight_is_parked_only_during_the_pause"
AFTER = PAUSE + "test_nothing_is_parked_after_the_resume"
DURING = PAUSE + "test_nothing_goes_on_during_the_pause"
ARMED = PAUSE + "test_a_disarmed_barrier_is_armed_again"

step = in_file("store/lua/_chain_step.lua")
advance = in_file("store/lua/advance.lua")
group = in_file("store/lua/advance_group.lua")
count = in_file("store/lua/count.lua")
release = in_file("store/lua/release.lua")
walk = in_file("store/lua/_walk.lua")
plan = in_file("store/lua/_plan.lua")
park = in_file("store/lua/park.lua")
park_jobs = in_file("store/lua/park_jobs.lua")
park_fanout = in_file("store/lua/park_fanout.lua")
pause = in_file("store/lua/pause.lua")
unpause = in_file("store/lua/unpause.lua")
unpark = in_file("store/lua/unpark.lua")
hold = in_file("store/lua/hold_barriers.lua")
rearm = in_file("store/lua/rearm.lua")
retry = in_file("store/lua/retry_dead.lua")
middleware = in_file("middleware.py")
known = in_file("process/cancelled_runs.py")
ends = in_file("broker/consumer.py")
retrying = in_file("runs/run_retry.py")

PAUSED = [
    step(
        "pause-step-goes-on",
        "The next step of a chain starts while the run is paused.",
        "state == 'cancelled' or state == 'paused'",
        "state == 'cancelled'",
        NEXT + "[step_paused]",
    ),
    advance(
        "pause-advance-goes-on",
        "The next steps start while the run is paused.",
        "local parked = state == 'paused' and record or nil\n",
        "local parked = nil\n",
        NEXT + "[advance_paused]",
    ),
    count(
        "pause-count-goes-on",
        "The next steps start while the run is paused, if the step before ran on another broker.",
        "local parked = state == 'paused' and record or nil\n",
        "local parked = nil\n",
        NEXT + "[count_paused]",
    ),
    release(
        "pause-release-goes-on",
        "The steps behind a custom barrier start while the run is paused.",
        "local parked = state == 'paused' and record or nil\n",
        "local parked = nil\n",
        NEXT + "[release_paused]",
    ),
    walk(
        "pause-disarmed-is-released",
        "A step behind a disarmed barrier never runs.",
        "      if disarmed then marker = -1 end\n",
        "",
        NEXT + "[advance_paused]",
    ),
    walk(
        "pause-disarmed-stays",
        "The resume arms a barrier that has released: its continuation may start twice.",
        "    if count.disarmed then redis.pcall('HDEL', count.disarmed, count.barrier) end\n",
        "",
        NEXT + "[advance_paused]",
    ),
    group(
        "pause-group-is-not-counted",
        "Members of a group with a disarmed barrier are not counted.",
        "disarmed_in(record, barrier, value, marker) then marker = -1 end\n",
        "disarmed_in(record, barrier, value, marker) then marker = 0 end\n",
        PAUSE + "test_members_of_a_group_with_a_disarmed_barrier_are_counted",
    ),
    group(
        "pause-group-memory-expires",
        "The memory of a paused run expires before its jobs.",
        "if state == 'paused' then ttl = math.max(ttl, PARKED_TTL) end\n",
        "",
        PAUSE + "test_members_of_a_group_with_a_disarmed_barrier_are_counted",
    ),
    plan(
        "pause-barriers-expire",
        "The barriers of parked jobs expire before these.",
        "plan.parked and math.max(PARKED_TTL, tonumber(ARGV[a])) or ARGV[a]",
        "ARGV[a]",
        NEXT + "[advance_paused]",
    ),
    plan(
        "pause-keeps-a-job",
        "The next step of a chain starts in its worker while the run is paused.",
        "  if parked then keep = nil end\n",
        "",
        NEXT + "[step_paused]",
    ),
    park(
        "park-after-the-resume",
        "A job that is parked after the resume waits for ever.",
        "elseif state ~= 'cancelled' then\n  redis.call('RPUSH', queue, payload)\n",
        "elseif state ~= 'cancelled' then\n  park(record, 'RPUSH', {'q' .. ARGV[2] .. '\\0' .. payload})\n",
        FLIGHT + "[running]",
    ),
    park_jobs(
        "park-jobs-after-the-resume",
        "Jobs that a slow pause parks after the resume wait for ever.",
        "if kind == 'none' or record_state(record) ~= 'paused' then",
        "if kind == 'none' then",
        AFTER + "[park_jobs]",
    ),
    park_jobs(
        "park-jobs-reversed",
        "Jobs of a queue change their order by a pause.",
        "park(record, 'LPUSH', entries)\n",
        "park(record, 'RPUSH', entries)\n",
        PAUSE + "test_the_order_of_a_queue_stays",
    ),
    park_fanout(
        "park-fanout-after-the-resume",
        "A fan-out that a slow pause parks after the resume waits for ever.",
        "if record_state(record) ~= 'paused' then return 0 end\n",
        "",
        AFTER + "[park_fanout]",
    ),
    park_fanout(
        "park-fanout-without-a-ttl",
        "A parked fan-out stays for ever.",
        "redis.call('EXPIRE', list, PARKED_TTL)\n",
        "",
        PAUSE + "test_jobs_that_wait_are_parked_and_put_back",
    ),
    pause(
        "pause-ended",
        "A run that is done counts as paused.",
        "if state ~= 'running' and state ~= 'failed' then",
        "if state == 'paused' then",
        PAUSE + "test_what_is_done_stays_done",
    ),
    pause(
        "pause-not-in-a-full-redis",
        "No run can be paused when Redis is out of memory.",
        "redis.call('ZREM', list, id)\n",
        "",
        FULL,
    ),
    pause(
        "pause-record-expires",
        "The record of a paused run expires before its jobs.",
        "prolong_record(record, 'paused', PARKED_TTL)\n",
        "",
        PAUSE + "test_the_record_lives_as_long_as_parked_jobs",
    ),
    unpause(
        "unpause-forgets-failures",
        "A run with dead steps counts as running after a pause.",
        "is_failed(record) and 'failed' or 'running'\n",
        "'running'\n",
        PAUSE + "test_a_run_with_dead_steps_is_failed_again_after_the_pause",
    ),
    unpark(
        "unpark-during-the-pause",
        "A slow resume starts the jobs of a run that was paused again.",
        "if state == 'paused' or state == 'cancelled' then return {'DONE'} end\n",
        "",
        DURING + "[unpark]",
    ),
    unpark(
        "unpark-not-in-a-full-redis",
        "No run can be resumed when Redis is out of memory.",
        "redis.call('LTRIM', list, #entries, -1)\n",
        "redis.call('SET', list .. ':x', '1', 'EX', '1'); redis.call('LTRIM', list, #entries, -1)\n",
        FULL,
    ),
    hold(
        "hold-nothing",
        "The plain gem starts the next steps of a paused run.",
        "    redis.call('SET', marker, '0', 'EX', PARKED_TTL)\n",
        "",
        ARMED,
    ),
    hold(
        "hold-after-the-resume",
        "A barrier that a slow pause disarms after the resume never releases.",
        "if record_state(record) ~= 'paused' then return 0 end\n",
        "",
        AFTER + "[hold_barriers]",
    ),
    rearm(
        "rearm-fires-nothing",
        "What the plain gem released during the pause never fires.",
        "    redis.call('LPUSH', 'queue:' .. each.name, each.job)\n",
        "",
        ARMED + "[released]",
    ),
    rearm(
        "rearm-fires-twice",
        "A Ruby worker between its two commands starts the next steps, and so does the resume.",
        "if value <= 0 and marker >= 1 then",
        "if value <= 0 then",
        ARMED + "[between]",
    ),
    rearm(
        "rearm-during-the-pause",
        "A slow resume arms the barriers of a run that was paused again.",
        "if state == 'paused' or state == 'cancelled' then return {'DONE'} end\n",
        "",
        DURING + "[rearm]",
    ),
    retry(
        "retry-cancelled",
        "A dead step of a cancelled run is lost by a retry.",
        "if state == 'cancelled' then return {'ENDED', state} end\n",
        "",
        PAUSE + "test_nothing_of_a_cancelled_run_is_retried",
    ),
    retry(
        "retry-during-the-pause",
        "A dead step runs while its run is paused.",
        "if state == 'paused' then\n  park(record",
        "if false then\n  park(record",
        PAUSE + "test_dead_steps_of_a_paused_run_are_parked",
    ),
    retry(
        "retry-stays-failed",
        "A run whose dead steps were retried counts as failed.",
        "if state and number ~= '' then forget_failure",
        "if false then forget_failure",
        PAUSE + "test_dead_steps_go_back_to_their_queues",
    ),
    retrying(
        "retry-counts",
        "A retried step has used up one attempt more.",
        '        fields["retry_count"] = count - 1\n',
        "        pass\n",
        PAUSE + "test_dead_steps_go_back_to_their_queues",
    ),
    middleware(
        "pause-no-upkeep",
        "A stored chain that parked jobs need expires after weeks.",
        "            upkeep.duties.append(PausedUpkeep(broker.connection, extend).look)\n",
        "",
        PAUSE + "test_a_worker_keeps_what_parked_jobs_need",
    ),
    known(
        "unread-state-is-cancelled",
        "A step of a run that was resumed is lost, if its worker cannot read the state of the run.",
        '            return ""\n        if state is None:',
        '            return "cancelled"\n        if state is None:',
        PAUSE + "test_no_step_of_a_resumed_run_is_dropped_if_its_state_cannot_be_read",
    ),
    known(
        "pause-forgotten",
        "A step of a paused run starts, if another one was parked before.",
        'HALTED = ("cancelled", "paused")',
        'HALTED = ("cancelled",)',
        PAUSE + "test_what_is_prefetched_is_parked",
    ),
    ends(
        "paused-step-is-lost",
        "A step of a paused run that did not run is lost.",
        "        if message.parked:\n            self._park(message)\n        elif",
        "        if",
        PAUSE + "test_what_is_prefetched_is_parked",
    ),
]
