"""Callbacks of runs, unique keys and deadlines, and the keeper."""

from __future__ import annotations

from ..mutant import in_file

CALLBACKS = "integration/test_run_callbacks.py::"
KEEPER = "integration/test_run_keeper.py::"

pushes = in_file("store/lua/_run_callback.lua")
record = in_file("store/lua/_record.lua")
cancel = in_file("store/lua/cancel.lua")
starts = in_file("store/lua/_new_record.lua")
notes = in_file("store/lua/note_death.lua")
calls = in_file("store/lua/call_back.lua")
completion = in_file("workflow/completion.py")
records = in_file("workflow/records.py")
known = in_file("process/cancelled_runs.py")
search = in_file("runs/run_sweep.py")
seen = in_file("runs/sightings.py")
resting = in_file("runs/resting_runs.py")
keeper = in_file("runs/run_keeper.py")
keeps = in_file("store/lua/keep.lua")

RUN_CALLBACKS = [
    pushes(
        "callback-twice",
        "A callback stays in the record after it was pushed, and is pushed again.",
        "redis.pcall('HDEL', record, name) == 1",
        "true",
        CALLBACKS + "test_a_burying_that_is_repeated_tells_once",
    ),
    pushes(
        "callback-lost",
        "The keeper does not hear of a callback that could not be pushed.",
        "    redis.pcall('HSET', record, name, callback)\n  end\n  rest(record, now)\n",
        "    redis.pcall('HSET', record, name, callback)\n  end\n",
        CALLBACKS + "test_a_callback_that_cannot_be_pushed_waits_for_the_keeper[type]",
    ),
    pushes(
        "callback-key-stays",
        "The unique key of a run that is done refuses the next run.",
        "if unique and redis.pcall('GET'",
        "if false and redis.pcall('GET'",
        CALLBACKS + "test_one_run_of_a_key_lives",
    ),
    pushes(
        "callback-key-of-another",
        "The end of a run frees the unique key that another run has taken over.",
        "redis.pcall('GET', 'swf:unique:' .. unique) == id",
        "redis.pcall('GET', 'swf:unique:' .. unique)",
        CALLBACKS + "test_a_key_is_taken_over",
    ),
    pushes(
        "callback-deadline-too-early",
        "A cancelled run leaves the deadlines before what is left of it was removed.",
        "if deadline and state == 'done' then",
        "if deadline then",
        KEEPER + "test_a_keeper_that_is_killed_leaves_the_rest_to_the_next[mark]",
    ),
    record(
        "callback-of-a-failure",
        "No callback comes when a step dies.",
        "  if found[1] then\n    local step",
        "  if false then\n    local step",
        CALLBACKS + "test_a_death_is_told_once",
    ),
    record(
        "callback-of-a-failed-run",
        "The keeper does not hear of a run that failed.",
        "  if found[2] then rest(record, now) end\n",
        "",
        KEEPER + "test_a_failed_run_is_complete_when_it_rests",
    ),
    record(
        "callback-key-expires",
        "The unique key of a run that failed expires before its record.",
        "if found[3] then outlive(",
        "if false then outlive(",
        CALLBACKS + "test_a_run_that_failed_keeps_its_key",
    ),
    record(
        "callback-of-the-end",
        "No callback comes when a run is done.",
        "  end_run(record, 'done', {found[5], found[6], found[7]}, now)\n",
        "",
        CALLBACKS + "test_the_end",
    ),
    cancel(
        "callback-of-a-cancellation",
        "No callback comes when a run is cancelled.",
        "end_run(record, 'cancelled', {found[4], found[5], found[6]}, now)\n",
        "",
        CALLBACKS + "test_a_callback_is_not_a_step",
    ),
    starts(
        "unique-two-runs",
        "Two runs of a unique key live.",
        "return {'TAKEN', holder}",
        "return",
        CALLBACKS + "test_one_run_of_a_key_lives",
    ),
    starts(
        "unique-for-ever",
        "A run that has ended, and could not free its key, refuses the next one.",
        "return state and state ~= 'done' and state ~= 'cancelled'",
        "return state",
        CALLBACKS + "test_a_key_is_taken_over",
    ),
    starts(
        "callback-without-a-record",
        "A user who may not write records starts a run whose callbacks never come.",
        "  return denied('HSET', record, '', '')\nend\n\nlocal function make",
        "end\n\nlocal function make",
        CALLBACKS + "test_the_user_must_be_allowed_to_write_the_record",
    ),
    notes(
        "death-of-a-job-that-left",
        "A job that was retried out of `dead` is recorded as dead.",
        "if not score or type(score) == 'table' and score.err then return {'KNOWN'} end\n",
        "",
        KEEPER + "test_what_is_not_recorded[gone]",
    ),
    notes(
        "death-of-a-step-that-is-done",
        "A step that is done is recorded as dead.",
        "if redis.pcall('HEXISTS', record .. ':times', number) == 1 then return {'KNOWN'} end\n",
        "",
        KEEPER + "test_what_is_not_recorded[done]",
    ),
    notes(
        "death-of-an-older-worker",
        "A death that a worker of a version before recorded is not told.",
        "  if not calls[1] and rests then return {'KNOWN'} end\n",
        "  return {'KNOWN'}\n",
        KEEPER + "test_a_death_that_an_older_worker_recorded_is_told",
    ),
    calls(
        "callback-of-another-state",
        "A run that goes on leaves the runs that rest.",
        "if (record_state(record) or '') ~= ARGV[1] then return {'CHANGED'} end\n",
        "",
        KEEPER + "test_a_run_that_has_changed_is_left_alone",
    ),
    completion(
        "callback-advances",
        "A callback that has run is taken for the last step of its run.",
        "        if CALLBACK_KEY in payload.fields:\n",
        "        if False:\n",
        CALLBACKS + "test_the_end",
    ),
    records(
        "callback-discarded",
        "A callback of a cancelled run that fails is not retried.",
        " or is_callback(payload.fields):\n",
        ":\n",
        CALLBACKS + "test_a_callback_of_a_cancelled_run_is_retried",
    ),
    known(
        "callback-dropped",
        "A callback of a cancelled run does not run.",
        "        if run_id is None or is_callback(payload.fields):\n",
        "        if run_id is None:\n",
        CALLBACKS + "test_a_callback_is_not_a_step",
    ),
    search(
        "callback-removed",
        "A second cancellation removes the callback of the first one.",
        " and not is_callback(payload.fields) else None",
        " else None",
        CALLBACKS + "test_a_callback_is_not_a_step",
    ),
    seen(
        "callback-seen-as-a-step",
        "A callback in `dead` makes its run fail.",
        "        is_step = fields.swf_callback is None\n",
        "        is_step = True\n",
        CALLBACKS + "test_a_callback_in_dead_does_not_make_its_run_fail",
    ),
    resting(
        "callback-before-the-rest",
        "A failed run is told to be complete while other branches run.",
        '        if view.run.state != "failed" or view.open_codes & GOING_ON:\n',
        '        if view.run.state != "failed":\n',
        KEEPER + "test_a_failed_run_is_complete_when_it_rests",
    ),
    resting(
        "callback-before-ruby-tells",
        "A failed run is told to be complete while plain Ruby may have begun a step unseen.",
        "        return not _misses(view) or (",
        "        return True or (",
        KEEPER + "test_jobs_that_are_not_found_count_as_gone_after_a_time",
    ),
    keeper(
        "deadline-of-an-earlier-run",
        "A deadline of an earlier run of the same id cancels a later one.",
        "if seconds is not None and not self._cancel(run_id, seconds):",
        "if not self._cancel(run_id, seconds or 0):",
        KEEPER + "test_a_later_run_of_the_same_id_has_no_deadline",
    ),
    keeps(
        "keeper-without-its-claim",
        "Two processes are the keeper.",
        "if type(holder) == 'string' and holder ~= ARGV[1] then return {'OTHER'} end\n",
        "",
        "integration/test_ttl.py::test_one_process_looks_at_dead_jobs_and_goes_on_where_another_was",
    ),
]
