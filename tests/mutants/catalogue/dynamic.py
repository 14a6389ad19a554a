"""Steps that a tree replaces, and steps that wait for a signal."""

from __future__ import annotations

from ..mutant import in_file

_REPLACED = "integration/test_replacement.py::"
_WAITS = "integration/test_wait_for.py::"
_TWO = _REPLACED + "test_of_two_deliveries_one_goes_on"

_STEERED = "integration/test_steered_steps.py::"
_PARKED = _STEERED + "test_a_tree_is_parked_and_goes_on"
_BEGINS = _STEERED + "test_a_step_that_begins_to_wait_in_a_pause_is_parked"

replace = in_file("store/lua/replace.lua")
wait = in_file("store/lua/wait.lua")
signal = in_file("store/lua/signal.lua")
place = in_file("workflow/replacement.py")
plan = in_file("workflow/plan.py")
waiting = in_file("workflow/waiting.py")
grown = in_file("wire/grown_tree.py")

DYNAMIC = [
    replace(
        "replace-chain-not-released",
        "A second delivery of a step of a chain starts what follows before the tree is done.",
        "    redis.call('SETEX', KEYS[5] .. '_ran', RELEASED_TTL, '0')\n",
        "",
        _TWO + "[chain-(True, False)]",
        _TWO,
    ),
    replace(
        "replace-member-not-noted",
        "A second delivery of a member of a group counts it, though its tree is not done.",
        "    redis.call('SADD', KEYS[5] .. ':u', unit)\n",
        "",
        _TWO,
    ),
    replace(
        "replace-first-without-marker",
        "A second delivery of the only step of a run starts the tree twice.",
        " and (marker == '' or redis.call('EXISTS', marker) == 0)",
        "",
        _TWO,
    ),
    replace(
        "replace-stays-in-flight",
        "A step that was replaced stays in flight, and runs again when its worker is gone.",
        "redis.call('HDEL', in_flight, receipt)\n",
        "",
        "integration/test_scripts.py",
    ),
    replace(
        "replace-after-another",
        "Two steps that are replaced at once give their trees the same numbers.",
        "    if now ~= numbered then",
        "    if false then",
        _REPLACED + "test_steps_that_end_together_get_different_numbers",
    ),
    replace(
        "replace-cancelled",
        "The tree of a cancelled run starts.",
        "local starts = not cancelled and walked.new",
        "local starts = walked.new",
        "integration/test_scripts.py",
    ),
    place(
        "replace-following-without-number",
        "The step after the tree gets the number of a step of the tree.",
        "        first.setdefault(STEP_KEY, number)\n",
        "        pass\n",
        _PARKED,
    ),
    place(
        "replace-whole-for-ruby",
        "Ruby pushes a Python step by a name that it does not know.",
        "    if tree.has_ruby:\n",
        "    if False:\n",
        _REPLACED + "test_ruby_gets_carriers_of_what_follows_the_tree",
    ),
    place(
        "replace-stack-kept",
        "A second delivery of a step of a chain counts down the barrier of its tree.",
        "        stack[-1] = attrs.evolve(stack[-1], barrier=barrier, remaining=",
        "        stack[-1] = attrs.evolve(stack[-1], remaining=",
        _TWO,
    ),
    plan(
        "replace-number-of-a-reference",
        "The steps of a stored chain behind a tree get the numbers of others.",
        "        self.number = reference.get(STEP_KEY, self.number)\n",
        "",
        _REPLACED + "test_numbers_of_a_stored_chain_go_on_after_the_tree",
    ),
    wait(
        "wait-misses-a-signal",
        "A step waits for a signal that is there.",
        "if data then return {'SIGNAL', data} end\n",
        "",
        _WAITS + "test_a_signal_is_kept_for_a_step_that_comes_later",
    ),
    wait(
        "wait-unknown-to-the-signal",
        "A signal does not find the step that waits for it.",
        "redis.call('HSET', waiting, ARGV[3], ARGV[4])\n",
        "",
        _WAITS + "test_the_run_goes_on_when_the_signal_comes",
    ),
    wait(
        "wait-outlived",
        "The barriers of a step that waits for months expire.",
        "for i = 6, #KEYS do outlive(KEYS[i], ttl) end\n",
        "",
        _WAITS + "test_what_is_kept_lives_as_long_as_the_wait",
    ),
    signal(
        "signal-without-gate",
        "A step that has left `schedule` is pushed a second time by a signal.",
        "  if redis.call('ZREM', schedule, step.payload) == 1 then\n",
        "  if redis.call('ZREM', schedule, step.payload) then\n",
        _WAITS + "test_a_signal_pushes_no_step_that_has_left_schedule",
    ),
    signal(
        "signal-not-kept",
        "A signal that comes before its step is lost.",
        "redis.call('HSET', signals, name, data)\n",
        "",
        _WAITS + "test_a_signal_is_kept_for_a_step_that_comes_later",
    ),
    waiting(
        "wait-forgets-its-limit",
        "Add to queue in Sidekiq's pages makes a step wait longer.",
        "    return wait.until or now + ",
        "    return now + ",
        _WAITS + "test_a_press_of_add_to_queue_changes_nothing",
    ),
    grown(
        "grown-number-as-position",
        "A step that was added is shown with the state of another one.",
        "        return self._positions.get(number, 0)\n",
        "        return number\n",
        _REPLACED + "test_ten_thousand_members_are_added",
    ),
    replace(
        "replace-during-a-pause",
        "The tree of a paused run starts.",
        "state == 'paused' and record or nil\n",
        "nil\n",
        _PARKED,
    ),
    replace(
        "replace-parked-for-weeks",
        "The barriers of a tree that is parked expire before the run is resumed.",
        "if parked then ttl = math.max(ttl, PARKED_TTL) end\n",
        "",
        _PARKED,
    ),
    replace(
        "replace-leaves-disarmed",
        "The barrier of a step that was replaced in a pause stays among those to arm again.",
        "    if disarmed then redis.pcall('HDEL', disarmed, KEYS[5]) end\n",
        "",
        _PARKED,
    ),
    replace(
        "replace-counts-fallbacks",
        "A list of runs counts steps of fallbacks that did not run.",
        "    if skipped ~= '0' then redis.pcall('HINCRBY', record, 'skipped', skipped) end\n",
        "",
        _STEERED + "test_a_step_of_a_tree_may_fail",
    ),
    place(
        "replace-callback",
        "A callback of a run adds steps to it.",
        " or is_callback(job.payload.fields)",
        "",
        _STEERED + "test_a_callback_of_a_run_is_not_replaced",
    ),
    wait(
        "wait-outlives-signals",
        "A signal that came already expires while the run waits for another one.",
        "outlive(signals, ttl)\n",
        "",
        _WAITS + "test_what_is_kept_lives_as_long_as_the_wait",
    ),
    wait(
        "wait-in-a-pause",
        "A step of a paused run begins to wait in schedule.",
        "if state == 'paused' then\n  -- When",
        "if false then\n  -- When",
        _BEGINS,
    ),
    wait(
        "wait-parked-for-weeks",
        "What a step that waits needs expires before its run is resumed.",
        "  ttl = math.max(ttl, PARKED_TTL)\n",
        "",
        _BEGINS,
    ),
    in_file("store/job_removal.py")(
        "wait-parked-as-scheduled",
        "A signal that comes while the run of a step is paused is lost.",
        '        return "s" if queue is None else f"q{queue}"\n',
        '        return "s"\n',
        _STEERED + "test_a_signal_during_a_pause_is_not_lost",
    ),
    in_file("store/lua/pause.lua")(
        "signal-expires-in-a-pause",
        "A signal expires while its run is paused.",
        "outlive('swf:signals:' .. id, PARKED_TTL)\n",
        "",
        _STEERED + "test_a_signal_before_a_pause_lives_as_long_as_the_pause",
    ),
    in_file("runs/run_cancellation.py")(
        "signal-of-a-cancelled-run",
        "A cancelled run leaves its signals.",
        "        run_signals.drop(self.connection, run_id)\n",
        "",
        _STEERED + "test_a_cancelled_run_keeps_no_signals",
    ),
    in_file("runs/step_codes.py")(
        "grown-failure-by-position",
        "Another step than the one that died is shown as dead.",
        "self.order.number(position) in failed",
        "position in failed",
        _STEERED + "test_a_step_of_a_tree_may_fail",
    ),
    in_file("runs/remedies.py")(
        "grown-groups-by-number",
        "The release of a step of a tree counts the members of another group.",
        "_groups(codes.tree, 1, codes.order.position(number))",
        "_groups(codes.tree, 1, number)",
        _STEERED + "test_steps_of_a_tree_are_released",
    ),
    in_file("runs/diagnosis.py")(
        "diagnosis-wait-has-no-actor",
        "A step that waits in a queue is said to have no actor.",
        " or is_own(patient.step.name)",
        "",
        _STEERED + "test_a_step_that_waits_needs_no_actor",
    ),
    in_file("runs/resting_runs.py")(
        "rests-while-a-step-waits",
        "on_complete is called though a step waits for its signal.",
        "SCHEDULED, SIGNAL, RETRY",
        "SCHEDULED, RETRY",
        _STEERED + "test_a_failed_run_does_not_rest_while_a_step_waits",
    ),
]
