"""What takes the place of a step that is dead."""

from __future__ import annotations

from ..mutant import in_file
from .tests import SCRIPTS, keeps, refuses

DEATHS = "integration/test_deaths.py::"

fail = in_file("store/lua/fail.lua")
replace = in_file("store/lua/replace_dead.lua")
bury = in_file("store/lua/bury.lua")
record = in_file("store/lua/_record.lua")
policy = in_file("workflow/death_policy.py")
middleware = in_file("middleware.py")
recovery = in_file("process/recovery.py")
retries = in_file("broker/retries.py")
numbers = in_file("wire/step_numbers.py")
references = in_file("workflow/stack_references.py")
codes = in_file("runs/step_codes.py")

DEATH = [
    fail(
        "death-starts-nothing",
        "A run stops at a step that may fail.",
        "if plan then write_plan(plan) end\n",
        "",
        DEATHS + "test_a_large_fallback_is_staged_again",
    ),
    fail(
        "death-in-a-cancelled-run",
        "The fallback of a step of a cancelled run starts.",
        "if caught and state ~= 'cancelled' then\n",
        "if caught then\n",
        DEATHS + "test_nothing_takes_the_place_of_a_step_of_a_cancelled_run",
    ),
    fail(
        "death-plan-unread",
        "A step leaves flight although what takes its place cannot be written.",
        "  if not plan then return wrong end\n",
        "",
        refuses("fail_caught", "queue:next"),
    ),
    fail(
        "death-fails-the-run",
        "A run whose dead step was caught counts as failed.",
        "tonumber(ARGV[7]), ARGV[11], barriers",
        "tonumber(ARGV[7]), nil, barriers",
        DEATHS + "test_a_run_goes_on_when_the_step_that_stopped_it_is_mended",
    ),
    replace(
        "replace-no-gate-check",
        "A dead step that was retried meanwhile is replaced as well.",
        "if not score then return {'GONE'} end\n",
        "",
        SCRIPTS + "test_sent_twice_it_is_done_once[replace_dead]",
    ),
    replace(
        "replace-no-zrem",
        "A dead step is replaced again at the next look.",
        "redis.call('ZREM', dead, ARGV[1])\n",
        "",
        DEATHS + "test_a_step_killed_by_hand_waits_for_the_next_look",
    ),
    replace(
        "replace-without-rights",
        "A dead step is lost if the process loses the right to write it.",
        "local wrong = denied('ZADD', dead, '0', '')\nif wrong then return wrong end\n",
        "local wrong\n",
        keeps("replace_dead", "zadd"),
    ),
    replace(
        "replace-in-a-cancelled-run",
        "The fallback of a step of a cancelled run starts.",
        "if state ~= 'cancelled' then\n",
        "do\n",
        DEATHS + "test_nothing_takes_the_place_of_a_step_of_a_cancelled_run",
    ),
    replace(
        "replace-leaves-a-run-failed",
        "A run that goes on past a step counts as failed, because an older worker has buried it.",
        "  forget_failure(record, state, ARGV[5], tonumber(ARGV[4]))\n",
        "",
        DEATHS + "test_a_death_that_stopped_the_run_is_caught_later",
    ),
    bury(
        "bury-replaces-twice",
        "On another broker, a death that is written again starts the fallback again.",
        "if caught and state ~= 'cancelled' and not redis.call('ZSCORE', dead, ARGV[2]) then\n",
        "if caught and state ~= 'cancelled' then\n",
        SCRIPTS + "test_sent_twice_it_is_done_once[bury_caught]",
    ),
    record(
        "record-caught-twice",
        "A death that is recorded twice hides another one, which stops the run.",
        "  if redis.pcall('HSET', record .. ':failed', number, failure) ~= 1 then return end\n",
        "  redis.pcall('HSET', record .. ':failed', number, failure)\n",
        SCRIPTS + "test_sent_twice_it_is_done_once[bury_caught]",
    ),
    record(
        "record-caught-keeps-a-run-failed",
        "A run that goes on after a retry counts as failed, because it has caught an error before.",
        "return type(dead) ~= 'number' or dead > caught\n",
        "return type(dead) ~= 'number' or dead > 0\n",
        DEATHS + "test_a_run_goes_on_when_the_step_that_stopped_it_is_mended",
    ),
    record(
        "record-caught-stays",
        "The errors of a run that is done stay longer than its record.",
        "if from ~= 'running' or found[4] then",
        "if from ~= 'running' then",
        DEATHS + "test_the_errors_of_a_run_that_is_done_are_kept_as_long_as_its_record",
    ),
    policy(
        "death-in-its-run",
        "A retry of a dead step by hand counts in its run once more, and ends it.",
        "    of_run = (payload.dialect.callbacks_key, payload.dialect.run_id_key, DEATH_KEY, STEP_KEY)\n",
        "    of_run = (payload.dialect.callbacks_key,)\n",
        DEATHS + "test_a_retry_by_hand_runs_the_step_alone",
    ),
    policy(
        "death-of-any-run",
        "Two runs with the same jids share the barriers of their fallbacks.",
        """derived(f"{payload.run_id}:{payload.jid}:{payload.fields.get('created_at')}:death")""",
        'derived(f"{payload.jid}:death")',
        DEATHS + "test_a_step_is_caught_by_its_run_only",
    ),
    policy(
        "death-stage-lost",
        "A large fallback whose list has expired is not staged again: it is lost.",
        "            if run(operation_of(writes)):\n                break\n",
        "            run(operation_of(writes))\n            break\n",
        DEATHS + "test_a_large_fallback_is_staged_again",
    ),
    middleware(
        "upkeep-replaces-nothing",
        "A run stops at a step that may fail if Ruby buries it.",
        "        upkeep.handlers.append(partial(death_policy.handle_dead, engine))\n",
        "",
        DEATHS + "test_a_step_killed_by_hand_waits_for_the_next_look",
    ),
    recovery(
        "recovery-pills-are-not-caught",
        "A run waits for a look at dead after a poison pill.",
        "                self.upkeep.handle(job.dead_payload)\n",
        "                pass\n",
        DEATHS + "test_a_poison_pill_is_caught_at_once",
    ),
    retries(
        "discard-catches-nothing",
        "A step that may fail is in dead although it says dead: false.",
        "    if payload_fields.DEATH_KEY in job.fields:\n",
        "    if False:\n",
        DEATHS + "test_a_step_that_is_discarded_is_caught_as_well[options1]",
    ),
    numbers(
        "numbers-follow-a-fallback",
        "The step after a fallback has the number of the fallback.",
        "        self.skipped = skipped + self.last - before\n        return True\n",
        "        self.skipped = skipped + self.last - before\n        return False\n",
        "unit/test_step_numbers.py",
    ),
    references(
        "references-end-in-a-step",
        "A Ruby fallback starts a step by a reference, which the plain gem cannot read.",
        "return self._reads(node) and all(map(self._ends_in_python, parts(node)))",
        "return self._reads(node)",
        DEATHS + "test_a_fallback_in_ruby_carries_what_comes_next_whole",
    ),
    codes(
        "codes-of-a-fallback-that-ran",
        "A fallback that does not run counts as done.",
        "        self.skip(first, start, (NONE, DONE, INFERRED))\n",
        "",
        "unit/test_step_codes.py::test_a_fallback_in_front_of_a_step_that_exists_is_skipped",
    ),
]
