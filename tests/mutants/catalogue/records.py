"""Records of runs: ``_record``, ``_new_record``, and where they are written."""

from __future__ import annotations

from ..mutant import in_file
from .tests import GROUP, RECORDS

record = in_file("store/lua/_record.lua")
new_record = in_file("store/lua/_new_record.lua")
advance = in_file("store/lua/advance.lua")
group = in_file("store/lua/advance_group.lua")
step = in_file("store/lua/_chain_step.lua")
fail = in_file("store/lua/fail.lua")
made = in_file("workflow/records.py")
completion = in_file("workflow/completion.py")
needs = in_file("store/needs.py")
reader = in_file("runs/run_reader.py")
numbers = in_file("wire/step_numbers.py")
plan = in_file("workflow/plan.py")

NUMBERS = "unit/test_step_numbers.py::test_a_step_holds_its_number_unless_one_step_of_python_starts_it"

SAME = "integration/test_chain_step.py::test_it_does_what_the_long_way_does"
ADOPTED_RUNS = "integration/test_adopted_runs.py::"
END = RECORDS + "test_the_end"
DEATH = RECORDS + "test_a_death_and_its_retry"
ADOPTED = RECORDS + "test_a_step_of_a_run_that_ruby_started"
LARGE = RECORDS + "test_a_large_run_has_a_bit_for_each_step"
LONG = RECORDS + "test_a_long_run_keeps_its_record"
START = RECORDS + "test_a_start"

RECORD = [
    record(
        "record-of-another-type",
        "A record of another type fails the step that would be written there.",
        "  local state = record ~= '' and redis.pcall('HGET', record, 'state')\n",
        "  local state = record ~= '' and redis.call('HGET', record, 'state')\n",
        RECORDS + "test_a_record_of_another_type_fails_no_step",
    ),
    record(
        "record-bits-as-times",
        "The record of a large run is large.",
        "  if number then\n    redis.pcall('HSET', record .. ':times', number, times)\n",
        "  number, times = string.match(text, '^(%d+) ?(.*)$')\n  if number then\n"
        "    redis.pcall('HSET', record .. ':times', number, times)\n",
        f"{SAME}[recorded-bit]",
    ),
    record(
        "record-not-listed",
        "A run in a new state is not in its list.",
        "  redis.pcall('ZADD', key, started, id)\n",
        "",
        START,
    ),
    record(
        "record-list-without-ttl",
        "The list of runs of a state stays for ever.",
        "  outlive(key, ttl)\nend\n\nlocal function relist",
        "end\n\nlocal function relist",
        START,
    ),
    record(
        "record-listed-twice",
        "A run that is done is listed as running.",
        "  redis.pcall('ZREM', 'swf:flows:' .. from, id)\n",
        "",
        END,
    ),
    record(
        "record-death-not-kept",
        "The error of a dead step is not in its record.",
        "  redis.pcall('HSET', record .. ':failed', number, failure)\n",
        "",
        DEATH,
    ),
    record(
        "record-not-failed",
        "The record of a run with a dead step says that it runs.",
        "  if state == 'running' then set_state(record, state, 'failed', type(left) == 'number' and left or 0) end\n",
        "",
        DEATH,
    ),
    record(
        "record-stays-for-ever",
        "The record of a run that is done lives as long as that of one that runs.",
        "  redis.pcall('EXPIRE', record, keep)\n",
        "",
        END,
    ),
    record(
        "record-bits-stay",
        "The bitmap of a run that is done lives as long as that of one that runs.",
        "  if total >= 1000 then redis.pcall('EXPIRE', record .. ':done', keep) end\n",
        "",
        LARGE,
    ),
    record(
        "record-failure-stays",
        "A step that is done after its death counts as dead.",
        "  redis.pcall('HDEL', record .. ':failed', number)\n",
        "",
        DEATH,
    ),
    record(
        "record-runs-with-a-dead-step",
        "A run with two dead steps runs again after one of them.",
        " or is_failed(record) then return state end\n",
        " then return state end\n",
        RECORDS + "test_one_of_two_failures_is_mended",
    ),
    record(
        "record-expires-in-a-long-run",
        "The record of a run that takes weeks expires before its end.",
        "  if prolongs then prolong_record(record, state, ttl) end\n",
        "",
        LONG,
    ),
    record(
        "record-of-a-finished-run-again",
        "A duplicate of the last step moves the time of the end.",
        "  if from == 'done' then return end\n",
        "",
        RECORDS + "test_a_duplicate_after_the_end_changes_nothing",
    ),
    new_record(
        "record-times-without-ttl",
        "The times of steps stay for ever.",
        "  redis.pcall('EXPIRE', record .. ':times', ttl)\n",
        "",
        START,
    ),
    new_record(
        "record-bits-without-ttl",
        "The bitmap of a large run stays for ever.",
        "    redis.pcall('EXPIRE', record .. ':done', ttl)\n",
        "",
        LARGE,
    ),
    new_record(
        "record-of-nothing",
        "A run without a step counts as running.",
        "  if new.state == 'done' then finish_record(record, 'running', '') end\n",
        "",
        RECORDS + "test_a_run_of_one_job_and_one_of_none_are_done",
    ),
    new_record(
        "record-of-before-stays",
        "A run of a name that was used before has the steps of that run.",
        "  if made < 3 then\n",
        "  if made < 0 then\n",
        RECORDS + "test_a_run_of_the_same_name_starts_anew",
    ),
    numbers(
        "numbers-follow-ruby",
        "The step after a Ruby step has no number, since the plain gem gives none.",
        "        return not has_fallback and self.is_python(job)\n",
        "        return not has_fallback\n",
        NUMBERS,
    ),
    numbers(
        "numbers-follow-a-delay",
        "The step after a delayed empty group has no number.",
        "            return follows and not delayed\n",
        "            return follows\n",
        NUMBERS,
    ),
    numbers(
        "numbers-follow-a-group",
        "The step after a group has no number, or that of a member.",
        "        return follows and not delayed and completes_at_once(node)\n",
        "        return follows\n",
        NUMBERS,
    ),
    plan(
        "numbers-not-handed-on",
        "Only the first step of a chain is recorded.",
        "            fields[STEP_KEY] = self.number\n",
        "            pass\n",
        START,
    ),
    advance(
        "advance-records-no-end",
        "A run is never done.",
        "  if not cancelled and walked.new and is_over(walked, fires) then finish_record(record, state, ARGV[6]) end\n",
        "",
        END,
    ),
    group(
        "group-records-nothing",
        "Members that are counted together are not recorded.",
        "if state and #done > 0 then record_steps(record, state, done, ttl) end\n",
        "",
        LARGE,
    ),
    group(
        "group-records-what-is-left",
        "A member that has not left flight counts as done.",
        "    if taken == 1 then done[#done + 1] = ARGV[4 + 3 * i] end\n",
        "    done[#done + 1] = ARGV[4 + 3 * i]\n",
        GROUP + "test_a_step_that_is_gone_is_not_recorded",
    ),
    step(
        "step-not-recorded",
        "A step of a chain is not recorded.",
        "  if state and step ~= '' then mark_done(record, step) end\n",
        "",
        f"{SAME}[recorded]",
    ),
    step(
        "step-not-adopted",
        "A run that Ruby started has no record.",
        "state == 'paused' or not state and record ~= '' and step == '' then",
        "state == 'cancelled' then",
        f"{SAME}[recorded-without-a-number]",
    ),
    step(
        "step-failure-stays",
        "A step that is done after its death counts as dead.",
        "  if string.find(step, '^!') or",
        "  if",
        f"{SAME}[recorded-after-a-failure]",
    ),
    fail(
        "fail-records-no-death",
        "A run with a dead step counts as running.",
        "record_failure(KEYS[3], state, ARGV[8], ARGV[9], tonumber(ARGV[7]), ARGV[11])\n",
        "",
        DEATH,
    ),
    made(
        "record-forgets-that-it-had-failed",
        "A step that is done after its death counts as dead.",
        '        mark = "!" if "retry_count" in payload.fields else ""\n',
        '        mark = "!" if payload.retries else ""\n',
        DEATH,
    ),
    made(
        "record-no-number-no-end",
        "A run whose last job is a delayed empty group is never done.",
        'return StepRecord(key, f"!{death_key(None, payload.jid)}" if mark else "")\n',
        "return NO_STEP\n",
        RECORDS + "test_a_run_that_ends_in_a_delayed_empty_group_is_done",
    ),
    completion(
        "record-single-job-not-done",
        "A run of one job is never done.",
        "        if not payload.stack and not output.memory.key and not record.key:\n",
        "        if not payload.stack and not output.memory.key:\n",
        RECORDS + "test_a_run_of_one_job_and_one_of_none_are_done",
    ),
    needs(
        "record-of-a-dead-step-expires",
        "The record of a run expires before its dead step is retried.",
        "*memories, *records), max(",
        "*memories), max(",
        DEATH,
    ),
    record(
        "adopted-death-first",
        "A run that Ruby started is not recorded, if the first thing that is seen of it is a death.",
        "  if not has_number and number ~= '' then state = state or known_state(record, '', ttl) end\n",
        "",
        ADOPTED_RUNS + "test_a_death_and_its_retry[runs-seen-first]",
    ),
    record(
        "adopted-death-expires",
        "The record of a run that Ruby started expires before its dead step is retried.",
        "  if not has_number then prolong_record(record, state, ttl) end\n",
        "",
        ADOPTED_RUNS + "test_a_death_and_its_retry[runs-seen-before]",
    ),
    record(
        "adopted-failure-stays",
        "A step without a number that is done after its death counts as dead.",
        "      state = forget_failure(record, state, string.sub(text, 2), ttl)\n",
        "",
        ADOPTED_RUNS + "test_a_death_and_its_retry[web-ui-seen-before]",
    ),
    reader(
        "adopted-death-of-plain-ruby-stays",
        "A step that plain Ruby has run again counts as dead.",
        " for raw in recorded if not run_records.is_inferred(raw)]",
        " for raw in recorded]",
        ADOPTED_RUNS + "test_a_death_in_plain_ruby",
    ),
    made(
        "adopted-callback-dies",
        "A callback of a run that fails makes the run fail.",
        "        key = self.key_of(payload)\n        if not key:\n            return NO_DEATH\n",
        "        key = keys.record(str(payload.run_id))\n",
        ADOPTED_RUNS + "test_a_callback_of_a_run_is_not_a_step",
    ),
]
