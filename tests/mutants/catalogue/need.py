"""Groups that need some of their members."""

from __future__ import annotations

from ..mutant import in_file
from .tests import SCRIPTS

NEED = "integration/test_need.py::"
ANY = "properties/test_any_need.py::test_a_group_goes_on_when_enough_members_are_done"
LATE = NEED + "test_members_that_are_late_go_on_to_their_end"
TOO_FEW = NEED + "test_a_death_counts_when_the_others_are_too_few"

need = in_file("store/lua/_need.lua")
walk = in_file("store/lua/_walk.lua")
advance = in_file("store/lua/advance.lua")
group = in_file("store/lua/advance_group.lua")
note = in_file("store/lua/note_death.lua")
record = in_file("store/lua/_record.lua")
plan = in_file("workflow/plan.py")
replacement = in_file("workflow/replacement.py")
codes = in_file("runs/step_codes.py")
marks = in_file("runs/step_marks.py")

NEEDING = [
    plan(
        "need-counts-all",
        "A group waits for members that it does not need.",
        "max(0, waiting - spare)",
        "waiting",
        LATE,
    ),
    walk(
        "need-late-expired",
        "A member that comes after the barrier has expired is dead.",
        "if needs and wrong and wrong[1] == 'EXPIRED' then return 0, 0 end",
        "",
        LATE,
    ),
    walk(
        "need-late-repeated",
        "A step that is late and comes twice is replaced by two trees.",
        "  redis.call('SADD', set, late.unit)\n",
        "",
        NEED + "test_many_late_members_at_once",
    ),
    walk(
        "need-late-for-ever",
        "What a late member leaves stays for ever.",
        "  if redis.call('TTL', set) < 0 then redis.call('EXPIRE', set, ttl) end\n",
        "",
        NEED + "test_many_late_members_at_once",
    ),
    walk(
        "need-late-no-output",
        "The output of a late member is lost.",
        "if needs and marker ~= -1 and counted ~= 1 then",
        "if needs and i > 1 and marker ~= -1 and counted ~= 1 then",
        ANY,
    ),
    walk(
        "need-units-forgotten",
        "A member that counted, and comes again when the group is met, is late.",
        "      redis.call('SADD', count.barrier .. ':u', count.unit)\n",
        "      redis.call('UNLINK', count.barrier .. ':u')\n",
        NEED + "test_a_member_that_counted_is_not_late",
    ),
    advance(
        "need-late-unmarked",
        "A late step that comes twice is late twice.",
        "if walked.late then count_late(walked.late, ttl) end\n",
        "",
        NEED + "test_a_member_that_counted_is_not_late",
    ),
    group(
        "need-group-late-waits",
        "Late members are counted on the barrier of a group that was met.",
        "  if late then\n",
        "  if false then\n",
        NEED + "test_many_late_members_at_once",
    ),
    need(
        "need-spares-all",
        "A run whose group cannot be met does not fail.",
        " <= spare then return true end",
        " <= spare + 1 then return true end",
        TOO_FEW,
    ),
    need(
        "need-counts-steps",
        "A member with two dead steps counts as two.",
        "barriers[i - 1] or number, ttl) <= spare",
        "id, ttl) <= spare",
        TOO_FEW,
    ),
    need(
        "need-late-death-fails",
        "The death of a late member fails the run.",
        "      if is_met(barrier) then return true end\n",
        "",
        NEED + "test_the_death_of_a_late_member_stops_nothing",
    ),
    need(
        "need-no-revival",
        "A run that goes on, since a dead step was retried, counts as failed.",
        "  revive(record, barriers, number)\n",
        "",
        TOO_FEW,
    ),
    record(
        "need-spared-counts-on",
        "A step that was spared, retried and done hides the death of another one.",
        "  forget_spared(record, number)\n  redis.pcall('HDEL', record .. ':failed', number)\n",
        "  redis.pcall('HDEL', record .. ':failed', number)\n",
        NEED + "test_a_spared_death_that_was_mended_hides_no_other",
    ),
    note(
        "need-noted-again",
        "The keeper counts a death that is spared at each look.",
        "if is_marked_spared(redis.pcall('HGET', record .. ':failed', number)) then return {'KNOWN'} end\n",
        "",
        SCRIPTS + "test_sent_twice_it_is_done_once[note_needed]",
    ),
    replacement(
        "need-carrier-numbers",
        "The record does not know the steps of a group that Ruby has pushed.",
        "tree.wire if tree.is_placed else ",
        "",
        NEED + "test_a_worker_starts_the_group_that_ruby_has_pushed",
    ),
    marks(
        "need-late-unseen",
        "A late member that waits in a queue is shown as done.",
        '    if tree is None or record.head.state != "done":\n        return 0\n',
        "    if tree:\n        return 0\n",
        LATE,
    ),
    codes(
        "need-late-is-inferred",
        "The steps behind a late one that runs are shown as done.",
        "                    self._settle(member, start, True)\n",
        "",
        LATE,
    ),
]
