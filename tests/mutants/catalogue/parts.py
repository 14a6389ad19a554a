"""The parts that scripts include: ``_walk``, ``_fields``, ``_slices``, ``_prolong`` and ``_types``.

A part serves several scripts, so its mutants stand here once per script that must notice the change.
"""

from __future__ import annotations

from ..mutant import Mutant, in_file
from .tests import COUNTED, INNER, RULES, STORAGE, TTL, WORKFLOW, WRONG, expires, keeps, refuses, twice

walk = in_file("store/lua/_walk.lua")
fields = in_file("store/lua/_fields.lua")
slices = in_file("store/lua/_slices.lua")
prolong = in_file("store/lua/_prolong.lua")
types = in_file("store/lua/_types.lua")
rights = in_file("store/lua/_rights.lua")
released = in_file("store/lua/_released.lua")

TWICE = WORKFLOW + "test_delivered_twice_a_job_of_a_group_counts_once"
MISSING = "test_a_missing_barrier_is_not_counted_on_another_broker"
NOT_WHOLE = WRONG + "test_a_barrier_that_is_no_whole_number"


def both(name: str, why: str, old: str, new: str, advance: str, count: str) -> list[Mutant]:
    """A change of the walk that a test of ``advance`` and one of ``count`` must notice."""
    return [walk(f"advance-{name}", why, old, new, advance), walk(f"count-{name}", why, old, new, count)]


def both_by(test: str, name: str, why: str, old: str, new: str) -> list[Mutant]:
    """The same for a test that has the script as its last parameter."""
    tests = (f"{RULES}{test}{script}]" for script in ("advance", "count"))
    return both(name, why, old, new, *tests)


PARTS = [
    # -- rights
    rights(
        "rights-not-asked",
        "A job is lost if its worker loses the right to write it elsewhere.",
        "if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then",
        "if false then",
        keeps("begin", "hset"),
    ),
    walk(
        "walk-without-rights-to-release",
        "A step is lost if its worker may not call SETEX.",
        "if released then wrong = denied('SETEX', barrier, '1', '') else",
        "if not released then",
        keeps("advance", "setex"),
    ),
    walk(
        "walk-without-rights-to-count",
        "A member of a group is lost if its worker may not call DECRBY.",
        " else wrong = denied('DECRBY', barrier, '1') end",
        " end",
        keeps("advance_member", "decrby"),
    ),
    # -- the walk: how long the units live
    *both(
        "units-without-ttl",
        "The set of units stays for ever.",
        "    redis.call('EXPIRE', set, math.max(ttl, redis.call('TTL', barrier)))\n",
        "",
        expires("advance_member"),
        expires("count_member"),
    ),
    *both_by(
        "test_units_live_as_long_as_their_barrier[",
        "units-expire-before-the-barrier",
        "Units expire while the barrier waits for a sibling with a long delay: a duplicate counts.",
        "math.max(ttl, redis.call('TTL', barrier)))",
        "ttl)",
    ),
    # -- the walk: types
    *both(
        "type-barrier",
        "A barrier of another type counts as one that expired.",
        "    if not is_number and redis.call('EXISTS', key) == 1 then return nil, nil, {'TYPE', key} end\n",
        "    if i == 2 and not is_number and redis.call('EXISTS', key) == 1 then return nil, nil, {'TYPE', key} end\n",
        refuses("advance", INNER),
        refuses("count", INNER),
    ),
    *both(
        "type-ran",
        "A marker of another type counts as one that expired.",
        "    if not is_number and redis.call('EXISTS', key) == 1 then return nil, nil, {'TYPE', key} end\n",
        "    if i == 1 and not is_number and redis.call('EXISTS', key) == 1 then return nil, nil, {'TYPE', key} end\n",
        refuses("advance", f"{INNER}_ran"),
        refuses("count", f"{INNER}_ran"),
    ),
    *both(
        "type-units",
        "A set of units of another type ends in an error of Lua.",
        "      if not alone then counted, wrong = checked('SISMEMBER', barrier .. ':u', unit) end\n",
        "      if not alone then counted = redis.pcall('SISMEMBER', barrier .. ':u', unit) end\n",
        refuses("advance", f"{INNER}:u"),
        refuses("count", f"{INNER}:u"),
    ),
    walk(
        "count-type-fired",
        "BARRIER:f of another type ends in an error of Lua.",
        "    if elsewhere then releaser, wrong = checked('GET', barrier .. ':f') end\n",
        "    if elsewhere then releaser = redis.pcall('GET', barrier .. ':f') end\n",
        refuses("count", f"{INNER}:f"),
    ),
    # -- the walk: barriers
    *both(
        "missing-barrier-is-counted",
        "A barrier that expired comes back without the others that it waits for: what follows starts early.",
        "  local value, marker = found[1] and whole(found[1]), found[2] and whole(found[2])\n",
        "  local value, marker = whole(found[1] or '0'), found[2] and whole(found[2])\n",
        WORKFLOW + "test_with_a_missing_barrier_the_job_is_dead_by_name[]",
        f"{RULES}{MISSING}[]",
    ),
    *both(
        "missing-marker-is-new",
        "A barrier whose marker expired is counted as if it had not released.",
        "  local value, marker = found[1] and whole(found[1]), found[2] and whole(found[2])\n",
        "  local value, marker = found[1] and whole(found[1]), whole(found[2] or '-1')\n",
        WORKFLOW + "test_with_a_missing_barrier_the_job_is_dead_by_name[_ran]",
        f"{RULES}{MISSING}[_ran]",
    ),
    *both(
        "any-number",
        "DECRBY fails on 1.5 after the first write.",
        "  local value, marker = found[1] and whole(found[1]), found[2] and whole(found[2])\n",
        "  local value, marker = found[1] and tonumber(found[1]), found[2] and tonumber(found[2])\n",
        f"{NOT_WHOLE}[1.5-]",
        f"{NOT_WHOLE}_on_another_broker[1.5]",
    ),
    *both(
        "number-of-barrier",
        "A barrier that is not a number counts as one that expired.",
        "    local is_number = found[i] and whole(found[i])\n",
        "    local is_number = i == 1 or found[i] and whole(found[i])\n",
        f"{NOT_WHOLE}[text-]",
        f"{NOT_WHOLE}_on_another_broker[text]",
    ),
    *both(
        "number-of-marker",
        "A marker that is not a number counts as one that expired.",
        "    local is_number = found[i] and whole(found[i])\n",
        "    local is_number = i == 2 or found[i] and whole(found[i])\n",
        f"{NOT_WHOLE}[text-_ran]",
        RULES + "test_a_marker_that_is_not_a_number_on_another_broker",
    ),
    *both(
        "released-counts-again",
        "A duplicate that comes after the release starts the continuation a second time.",
        "      if marker ~= -1 or counted == 1 then",
        "      if counted == 1 then",
        TWICE,
        COUNTED,
    ),
    *both_by(
        "test_a_chains_step_that_comes_again_starts_nothing[",
        "released-chain-counts-again",
        "A step of a chain that is delivered twice starts the next step twice.",
        "      if marker ~= -1 or counted == 1 then",
        "      if counted == 1 then",
    ),
    *both_by(
        "test_the_last_but_one_of_a_group_that_comes_again_releases_nothing[",
        "all-are-alone",
        "A duplicate is counted as the last member of its group: what follows starts early.",
        "      local alone = released and kind == 'f'\n",
        "      local alone = released\n",
    ),
    *both(
        "no-unit-check",
        "A member of a group that is delivered twice counts twice: what follows starts early.",
        "      if marker ~= -1 or counted == 1 then",
        "      if marker ~= -1 then",
        TWICE,
        twice("count_member"),
    ),
    *both(
        "no-unit-added",
        "Units that were counted are not remembered: a duplicate counts twice.",
        "  redis.call('SADD', set, unpack(units))\n",
        "",
        TWICE,
        twice("count_member"),
    ),
    *both_by(
        "test_a_finished_inner_group_is_counted_once[",
        "unit-of-an-inner-group",
        "An inner group is counted under the jid of its last member: made anew, it is counted again.",
        "    unit = barrier\n",
        "",
    ),
    *both(
        "duplicate-writes-output",
        "A duplicate overwrites what the first run of the step has written.",
        "        if i == 1 then walked.new = false end\n        break\n",
        "        break\n",
        WORKFLOW + "test_a_duplicate_does_not_write_its_output_again",
        COUNTED,
    ),
    *both_by(
        "test_a_barrier_below_one_releases[0-",
        "releases-at-zero-only",
        "A barrier below 1 (Ruby counted a duplicate) never releases: the run hangs.",
        "      local released = value <= 1\n",
        "      local released = value == 1\n",
    ),
    *both(
        "does-not-wait",
        "The first member of a group starts what follows the group.",
        "      if not released then break end\n",
        "",
        TWICE,
        COUNTED,
    ),
    *both(
        "decrements-nothing",
        "A group never ends.",
        "  redis.call('DECRBY', barrier, #units)\n",
        "",
        TWICE,
        COUNTED,
    ),
    *both_by(
        "test_what_does_not_propagate_stops_there[1-",
        "propagates-always",
        "A callback that does not propagate counts down the barrier below it.",
        "    if kind == 's' then break end\n",
        "",
    ),
    # -- the walk of a unit that released a barrier on another broker before
    walk(
        "count-releaser-writes-output",
        "A late duplicate of the step that released a barrier overwrites its output.",
        "      if i == 1 then walked.new = false end\n      -- The unit",
        "      -- The unit",
        COUNTED,
    ),
    walk(
        "count-any-unit-fires-again",
        "A duplicate of another member enqueues the continuation, too.",
        "      if releaser ~= unit then break end\n",
        "",
        COUNTED,
    ),
    walk(
        "count-does-not-fire-again",
        "Killed between counting and enqueueing, the continuation is lost.",
        "    if kind == 'f' then\n",
        "    if kind == 'f' and not releaser then\n",
        twice("count"),
    ),
    walk(
        "count-stops-again",
        "Asked again, a callback that does not propagate is passed.",
        "    if kind == 's' then break end\n",
        "    if kind == 's' and not releaser then break end\n",
        RULES + "test_a_unit_that_released_on_another_broker_is_known_again",
    ),
    # -- the walk: what lives how long
    *both_by(
        "test_a_released_barrier_is_kept_for_a_day[",
        "released-barrier-goes",
        "A late duplicate finds no barrier, and goes to dead.",
        "    redis.call('SETEX', count.barrier, kept, count.value == 1 and '0' or count.value - 1)\n",
        "    redis.call('DEL', count.barrier)\n",
    ),
    *both_by(
        "test_a_released_barrier_is_kept_for_a_day[",
        "released-marker-stays-open",
        "A late duplicate counts a released barrier again.",
        "    redis.call('SETEX', count.barrier .. '_ran', kept, '0')\n",
        "",
    ),
    released(
        "released-for-an-hour",
        "A duplicate that is a day late is not known any more.",
        "local RELEASED_TTL = '86400'\n",
        "local RELEASED_TTL = '3600'\n",
        f"{RULES}test_a_released_barrier_is_kept_for_a_day[advance]",
    ),
    *both_by(
        "test_a_released_barrier_is_kept_for_a_day[",
        "units-stay-after-release",
        "The jids of a large group stay in Redis for weeks.",
        "      redis.call('UNLINK', count.barrier .. ':u')\n",
        "",
    ),
    *both_by(
        "test_waiting_barriers_live_on[",
        "waiting-barriers-expire",
        "A barrier does not live on while members of its group finish.",
        "      redis.call('EXPIRE', barrier, ttl)\n",
        "",
    ),
    *both_by(
        "test_waiting_barriers_live_on[",
        "waiting-markers-expire",
        "The marker of a barrier expires before it.",
        "      redis.call('EXPIRE', barrier .. '_ran', ttl)\n",
        "",
    ),
    *both_by(
        "test_waiting_barriers_live_on[",
        "waiting-units-expire",
        "The units of a barrier expire before it: a duplicate counts.",
        "      redis.call('EXPIRE', barrier .. ':u', ttl)\n",
        "",
    ),
    *both_by(
        "test_waiting_barriers_live_on[",
        "only-the-top-lives-on",
        "Barriers below the top one expire while a long inner group runs.",
        "  for i = walked.released, walked.n - 1 do\n",
        "  for i = walked.released, walked.released do\n",
    ),
    *both_by(
        "test_barriers_are_never_shortened[",
        "barriers-are-shortened",
        "A member without delays shortens what a sibling with a long delay needs.",
        "    if redis.call('TTL', barrier) < ttl - SLACK then",
        "    if true then",
    ),
    # -- fields and slices
    fields(
        "advance-no-output",
        "What a step returns is not kept.",
        "  call_in_slices('HSET', key, ARGV, fields.first, fields.last)\n",
        "",
        WORKFLOW + "test_a_duplicate_does_not_write_its_output_again",
    ),
    fields(
        "count-no-output",
        "What a step on another broker returns is not kept.",
        "  call_in_slices('HSET', key, ARGV, fields.first, fields.last)\n",
        "",
        COUNTED,
    ),
    slices(
        "slices-all-at-once",
        "Some thousands of values end the script in the middle.",
        "math.min(from + 999, last)",
        "last",
        RULES + "test_many_values_are_written_in_slices",
    ),
    slices(
        "slices-overlap",
        "One payload in a thousand is pushed twice.",
        "math.min(from + 999, last)",
        "math.min(from + 1000, last)",
        RULES + "test_many_values_are_written_in_slices",
    ),
    # -- lifetimes
    prolong(
        "fail-shortens",
        "A failure shortens what others of its run need.",
        "  if left ~= -2 and left < ttl then",
        "  if left ~= -2 then",
        RULES + "test_barriers_are_never_shortened[fail]",
    ),
    prolong(
        "bury-shortens",
        "A failure on another broker shortens what others of its run need.",
        "  if left ~= -2 and left < ttl then",
        "  if left ~= -2 then",
        RULES + "test_barriers_are_never_shortened[bury]",
    ),
    prolong(
        "remember-shortens",
        "A write from outside makes the memory of a waiting run expire.",
        "  if left ~= -2 and left < ttl then",
        "  if left ~= -2 then",
        TTL + "test_a_write_from_outside_never_makes_it_shorter",
    ),
    prolong(
        "own-shortens",
        "A chain that is written late expires before its run is over.",
        "  if left ~= -2 and left < ttl then",
        "  if left ~= -2 then",
        RULES + "test_the_chain_of_a_run_is_prolonged_and_not_shortened",
    ),
    prolong(
        "extend-shortens",
        "extend_ttl shortens what lives longer.",
        "  if left >= 0 and left < ttl - slack then",
        "  if left >= 0 then",
        TTL + "test_extend_ttl_never_shortens",
    ),
    prolong(
        "read-prolongs-nothing",
        "A stored chain expires while its run moves.",
        "  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end\n",
        "",
        STORAGE + "test_it_lives_on_while_the_run_moves",
    ),
    prolong(
        "store-prolongs-nothing",
        "A chain that a second run refers to expires with the first.",
        "  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end\n",
        "",
        RULES + "test_a_stored_chain_is_prolonged_when_it_is_stored_again",
    ),
    prolong(
        "store-shortens",
        "A run lets a chain expire that another refers to for longer.",
        "  if left >= 0 and left < ttl - slack then",
        "  if left >= 0 then",
        STORAGE + "test_what_is_stored_already_lives_no_shorter",
    ),
    # -- types
    types(
        "types-none-is-wrong",
        "A key that is not there yet is taken for one of another type.",
        "  return found == 'none' or found == wanted\n",
        "  return found == wanted\n",
        RULES + "test_a_plan_is_written_whole",
    ),
    types(
        "types-any-is-right",
        "A key of another type ends in an error of Lua, after the first write.",
        "  return found == 'none' or found == wanted\n",
        "  return true\n",
        refuses("advance", "schedule"),
    ),
]
