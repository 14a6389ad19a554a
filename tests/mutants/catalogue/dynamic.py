"""Steps that a tree replaces, and steps that wait for a signal."""

from __future__ import annotations

from ..mutant import in_file

_REPLACED = "integration/test_replacement.py::"
_WAITS = "integration/test_wait_for.py::"
_ANY = "properties/test_any_replacement.py"
_TWO = _REPLACED + "test_of_two_deliveries_one_goes_on"

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
        _TWO + "[replaced0-chain]",
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
        _ANY,
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
]
