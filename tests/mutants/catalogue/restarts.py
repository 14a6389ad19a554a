"""Restarts of dead steps with what comes after them, and of whole runs."""

from __future__ import annotations

from ..mutant import in_file

MODES = "integration/test_retry_modes.py::"
ANY = "properties/test_any_restart.py"
FORGETS = MODES + "test_a_restart_forgets_the_steps_and_nothing_else"
TWICE = "integration/test_scripts.py::test_sent_twice_it_is_done_once[restart]"

script = in_file("store/lua/restart.lua")
record = in_file("store/lua/_new_record.lua")
finish = in_file("store/lua/_record.lua")
restarting = in_file("runs/restarting.py")
repetition = in_file("runs/repetition.py")
later = in_file("wire/later_steps.py")
rebuilt = in_file("workflow/rebuilt_tree.py")
death = in_file("workflow/death_policy.py")
typed = in_file("workflow/run_callbacks.py")
remedies = in_file("runs/remedies.py")

RESTARTED = [
    script(
        "restart-twice",
        "A restart that is sent twice starts the steps twice.",
        "  if not score then return {'GONE'} end\n",
        "",
        TWICE,
    ),
    script(
        "restart-cancelled",
        "Steps of a cancelled run start.",
        "if not state or state == 'cancelled' then return {'GONE'} end\n",
        "",
        MODES + "test_nothing_of_a_run_starts_that_is_cancelled_or_unknown",
    ),
    script(
        "restart-takes-the-key",
        "Two runs of one unique key live.",
        "  if holds_key(record, holder) then return {'TAKEN', holder} end\n",
        "",
        MODES + "test_another_run_has_the_unique_key",
    ),
    script(
        "restart-paused",
        "Steps of a paused run start.",
        "read_plan(4, a, nil, state == 'paused' and record or nil)",
        "read_plan(4, a, nil, nil)",
        MODES + "test_the_plan_of_a_paused_run_is_parked",
    ),
    script(
        "restart-keeps-times",
        "Steps that run again are shown as done.",
        "      redis.pcall('HDEL', times, n)\n",
        "",
        FORGETS,
    ),
    script(
        "restart-keeps-bits",
        "Steps of a large run that run again are shown as done.",
        "      redis.pcall('SETRANGE', done, n / 8, string.rep('\\0', bytes))\n",
        "",
        FORGETS,
    ),
    script(
        "restart-keeps-failures",
        "A step that runs again is shown as dead.",
        "for i = deaths + 1, trees - 1 do redis.pcall('HDEL', record .. ':failed', ARGV[i]) end\n",
        "",
        FORGETS,
    ),
    script(
        "restart-memory-expires",
        "The memory of a run that had ended expires while it runs again.",
        "if memory ~= '' then prolong(memory, ttl) end\n",
        "",
        FORGETS,
    ),
    record(
        "start-not-kept",
        "A repeatable run cannot start again.",
        "  if new.start ~= '' then redis.pcall('SET', record .. ':start', new.start, 'EX', ttl) end\n",
        "",
        MODES + "test_a_whole_run_starts_again",
    ),
    finish(
        "start-outlives-its-record",
        "What a run was started with stays for weeks after its record.",
        "  if found[10] then redis.pcall('EXPIRE', record .. ':start', keep) end\n",
        "",
        MODES + "test_a_whole_run_starts_again",
    ),
    restarting(
        "restart-at-work",
        "What follows runs twice at the same time.",
        "view.codes is None or view.open_codes & OPEN",
        "view.codes is None",
        MODES + "test_a_run_that_is_at_work_is_not_started_anew",
    ),
    restarting(
        "restart-followers-alone",
        "A dead step that comes after another one runs twice.",
        "if not after[place])",
        ")",
        ANY,
    ),
    later(
        "later-without-fallback",
        "A step of a fallback that failed starts beside the step whose place it took.",
        "return iter([range(first + 1, first + node.count)])",
        "return iter(())",
        ANY,
    ),
    rebuilt(
        "rebuilt-without-group",
        "What follows a group runs once for each of its dead steps.",
        "inside.setdefault(step.stack[depth].barrier, [])",
        "inside.setdefault(step.jid, [])",
        MODES + "test_what_follows_a_group_runs_once_for_all_its_dead_steps",
    ),
    death(
        "died-without-stack",
        "A step that its run went on past cannot start with what comes after it.",
        "    taken = {key: fields[key] for key in of_run if key in fields}\n",
        "    taken: dict[str, Any] = {}\n",
        MODES + "test_a_step_runs_again_with_the_memory_and_the_number_that_it_had",
    ),
    repetition(
        "repeat-twice",
        "Each call starts one more run, while the last one lives.",
        "        if head.repeated and run_records.state_of(self.connection, head.repeated) in ALIVE:\n",
        "        if False:\n",
        MODES + "test_a_whole_run_starts_again",
    ),
    repetition(
        "repeat-at-work",
        "A run starts again while it is at work.",
        "        if not self.reader.get(head.id).at_rest:\n",
        "        if False:\n",
        MODES + "test_a_run_at_work_is_not_repeated",
    ),
    typed(
        "typed-callback-unchecked",
        "A typed actor that cannot take the mapping is dead when it is called.",
        "            schema.check({**given, RUN_FIELD: run})\n",
        "            pass\n",
        "integration/test_run_callbacks.py::test_a_typed_actor_that_cannot_take_the_mapping_is_refused",
    ),
    remedies(
        "rerun-stays-failed",
        "A run whose dead steps run again is listed as failed.",
        "        if job.place.key == keys.DEAD:\n",
        "        if False:\n",
        "integration/test_doctor.py::test_dead_steps_run_again",
    ),
]
