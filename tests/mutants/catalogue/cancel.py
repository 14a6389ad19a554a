"""Cancellation of runs: in the scripts, at the start of a step, and the removal of jobs."""

from __future__ import annotations

from ..mutant import in_file

CANCEL = "integration/test_cancel_run.py::"
LAST = CANCEL + "test_the_last_step_writes_its_output_and_its_mark"
FULL = CANCEL + "test_a_full_redis_takes_it"

step = in_file("store/lua/_chain_step.lua")
advance = in_file("store/lua/advance.lua")
group = in_file("store/lua/advance_group.lua")
count = in_file("store/lua/count.lua")
release = in_file("store/lua/release.lua")
fail = in_file("store/lua/fail.lua")
cancel = in_file("store/lua/cancel.lua")
listing = in_file("store/lua/_listing.lua")
take_jobs = in_file("store/lua/_take_jobs.lua")
disarm = in_file("store/lua/disarm.lua")
removal = in_file("store/job_removal.py")
known = in_file("process/cancelled_runs.py")
begins = in_file("broker/worker_middleware.py")
ends = in_file("broker/consumer.py")
search = in_file("runs/run_sweep.py")
cancellation = in_file("runs/run_cancellation.py")
query = in_file("runs/query.py")

CANCELLED = [
    step(
        "cancel-step-goes-on",
        "The next step of a chain starts after the run was cancelled.",
        "state == 'cancelled' or state == 'paused'",
        "state == 'paused'",
        LAST + "[step_cancelled-armed]",
    ),
    advance(
        "cancel-advance-goes-on",
        "The next steps start after the run was cancelled.",
        "local cancelled, walked, wrong = state == 'cancelled', nil, nil\n",
        "local cancelled, walked, wrong = false, nil, nil\n",
        LAST + "[advance_cancelled-armed]",
    ),
    advance(
        "cancel-advance-is-done",
        "A cancelled run is recorded as done when its last step ends.",
        "  if not cancelled and walked.new and is_over",
        "  if walked.new and is_over",
        LAST + "[advance_cancelled-armed]",
    ),
    group(
        "cancel-group-goes-on",
        "Members of a cancelled run that end are counted, and one that would be the last stays in flight.",
        "local cancelled = state == 'cancelled'\n",
        "local cancelled = false\n",
        CANCEL + "test_the_last_members_of_a_group",
    ),
    group(
        "cancel-group-without-output",
        "The output of a member that ends after the cancellation is lost.",
        "(new or cancelled) then write_fields",
        "new then write_fields",
        CANCEL + "test_the_last_members_of_a_group",
    ),
    group(
        "cancel-group-memory-stays",
        "The memory of a cancelled run stays for ever.",
        "  keep_memory(memory, memory_ttl, ttl, no_walk(), false)\n",
        "",
        CANCEL + "test_the_last_members_of_a_group",
    ),
    count(
        "cancel-count-goes-on",
        "The next steps start on another broker after the run was cancelled.",
        "local cancelled, walked, wrong = state == 'cancelled', nil, nil\n",
        "local cancelled, walked, wrong = false, nil, nil\n",
        LAST + "[count_cancelled-armed]",
    ),
    count(
        "cancel-count-is-done",
        "A cancelled run is recorded as done when its last step ends.",
        "  if not cancelled and walked.new and is_over",
        "  if walked.new and is_over",
        LAST + "[count_cancelled-armed]",
    ),
    release(
        "cancel-release-goes-on",
        "The steps behind a custom barrier start after the run was cancelled.",
        "if marker ~= '' and not cancelled and",
        "if marker ~= '' and",
        LAST + "[release_cancelled-armed]",
    ),
    fail(
        "cancel-fail-retries",
        "A step that fails after its run was cancelled waits in `retry`.",
        "if action == 'retry' and state == 'cancelled' then action = 'discard' end\n",
        "",
        CANCEL + "test_a_failure_is_not_retried",
    ),
    cancel(
        "cancel-done-again",
        "A run that is done counts as cancelled.",
        "if state == 'done' or state == 'cancelled' then",
        "if state == 'cancelled' then",
        CANCEL + "test_what_is_done_stays_done",
    ),
    cancel(
        "cancel-twice",
        "A second call changes the reason and the end of a cancelled run.",
        "if state == 'done' or state == 'cancelled' then",
        "if state == 'done' then",
        CANCEL + "test_a_second_call_changes_nothing",
    ),
    cancel(
        "cancel-not-in-a-full-redis",
        "No run can be cancelled when Redis is out of memory.",
        "redis.call('ZREM', list, id)\n",
        "",
        FULL,
    ),
    listing(
        "cancel-behind-the-clock",
        "Workers do not see a cancellation after the clock was set back.",
        "local score = last and tonumber(last) >= tonumber(now)",
        "local score = false",
        CANCEL + "test_each_cancellation_comes_after_those_before",
    ),
    listing(
        "cancel-list-grows",
        "The list of cancelled runs grows for ever.",
        "  redis.call('ZREMRANGEBYRANK', list, 0, -most - 1)\n",
        "",
        CANCEL + "test_the_list_of_cancelled_runs_is_trimmed",
    ),
    listing(
        "cancel-list-keeps-old",
        "Workers read runs that were cancelled long ago.",
        "  redis.call('ZREMRANGEBYSCORE', list, '-inf', string.format('(%.3f', tonumber(now) - kept))\n",
        "",
        CANCEL + "test_a_run_that_was_cancelled_long_ago_leaves_the_list",
    ),
    cancel(
        "cancel-record-stays",
        "The record of a cancelled run is kept longer than its time.",
        "for _, part in ipairs(PARTS) do redis.pcall('EXPIRE', record .. part, keep) end\n",
        "",
        CANCEL + "test_the_record_says_so",
    ),
    take_jobs(
        "drop-not-in-a-full-redis",
        "The jobs of a cancelled run stay in their queue when Redis is out of memory.",
        "  redis.call('LTRIM', place, 0, -1)\n",
        "",
        FULL,
    ),
    take_jobs(
        "drop-more-than-asked",
        "More jobs of equal bytes are removed than were found.",
        "        wanted[payload] = wanted[payload] - 1\n",
        "",
        CANCEL + "test_no_more_jobs_are_removed_than_were_found",
    ),
    disarm(
        "disarm-nothing",
        "The plain gem starts the next steps of a cancelled run.",
        "    redis.call('SET', marker, '0', 'EX', lives)\n",
        "",
        CANCEL + "test_disarmed_barriers_release_nothing",
    ),
    disarm(
        "disarm-not-in-a-full-redis",
        "Barriers of a cancelled run stay armed when Redis is out of memory.",
        "    redis.call('EXPIRE', marker, lives)\n",
        "",
        FULL,
    ),
    removal(
        "removal-skips",
        "Jobs of a cancelled run behind those that were removed stay in the queue.",
        "cursor = str(int(part.cursor) - gone) if gone else part.cursor",
        "cursor = part.cursor",
        CANCEL + "test_one_look_removes_all",
    ),
    known(
        "known-reads-all",
        "A step that was retried out of `dead` runs, although its run was cancelled.",
        '(self._is_listed(run_id) or "retry_count" in payload.fields)',
        "self._is_listed(run_id)",
        CANCEL + "test_a_step_retried_out_of_dead_does_not_run",
    ),
    known(
        "known-for-ever",
        "A run does not start if it has the id of one that was cancelled.",
        '            self._known.pop(run_id, None)\n            return ""\n',
        '            return "cancelled"\n',
        CANCEL + "test_a_later_run_of_the_same_id_runs",
    ),
    begins(
        "cancelled-step-begins",
        "A step that was fetched before the cancellation runs.",
        '                raise SkipMessage(f"The run of job {message.message_id} is {halted}.")\n',
        "                pass\n",
        CANCEL + "test_what_is_prefetched_does_not_run",
    ),
    begins(
        "cancelled-step-counts",
        "A step of a cancelled run that did not run counts as processed.",
        "        if message.gone or message.dropped:\n",
        "        if message.gone:\n",
        CANCEL + "test_what_is_prefetched_does_not_run",
    ),
    ends(
        "cancelled-step-advances",
        "A step that did not run, since its run was cancelled, is recorded as done.",
        "        elif message.dropped:\n",
        "        elif False:\n",
        CANCEL + "test_what_is_prefetched_does_not_run",
    ),
    search(
        "cancel-removes-others",
        "Jobs of another run that mention the cancelled run are removed.",
        "        return payload if payload.run_id == run_id and not is_callback(payload.fields) else None\n",
        "        return payload\n",
        CANCEL + "test_jobs_that_wait_are_removed",
    ),
    cancellation(
        "cancel-leaves-jobs",
        "Jobs of a cancelled run stay in their places.",
        "        cleared = job_removal.clear(self.connection, run_id, is_ours, Removal(self.connection))\n",
        "        cleared = job_removal.Clearing([], 0)\n",
        CANCEL + "test_jobs_that_wait_are_removed",
    ),
]
