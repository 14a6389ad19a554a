"""Queues and sets: ``push``, ``promote``, ``due``, and what a process counts and shows."""

from __future__ import annotations

from ..mutant import in_file
from .tests import MEMBERS, POLLER, RULES, expires, refuses, twice

push = in_file("store/lua/push.lua")
promote = in_file("store/lua/promote.lua")
due = in_file("store/lua/due.lua")
flush = in_file("store/lua/flush.lua")
process = in_file("store/lua/process.lua")

QUEUES = [
    push(
        "push-twice",
        "A push whose reply was lost is made twice.",
        "if last >= number then return 0 end\nif last ~= number - 1 then return -1 end\n",
        "",
        twice("push"),
    ),
    push(
        "push-not-noted",
        "The number of a push that was made is not known.",
        "redis.call('SET', KEYS[1], ARGV[1], 'EX', '3600')\n",
        "",
        twice("push"),
    ),
    push(
        "push-late",
        "A push that is delivered after a later one of its producer is made twice.",
        "if last >= number then return 0 end\nif last ~= number - 1 then return -1 end\n",
        "if last == number then return 0 end\n",
        RULES + "test_a_push_that_comes_after_a_later_one_is_not_made_again",
    ),
    push(
        "push-after-a-failed-one",
        "Of several pushes in one write those after a failed one are made.",
        "if last ~= number - 1 then return -1 end\n",
        "",
        RULES + "test_a_push_needs_the_one_before_it",
    ),
    push(
        "push-number-without-ttl",
        "The number of each producer stays for ever.",
        "redis.call('SET', KEYS[1], ARGV[1], 'EX', '3600')\n",
        "redis.call('SET', KEYS[1], ARGV[1])\n",
        expires("push"),
    ),
    push(
        "push-noted-before-reading",
        "With a key of another type a push counts as made.",
        "local to_schedule = ARGV[2] == ''\n",
        "redis.call('SET', KEYS[1], ARGV[1], 'EX', '3600')\nlocal to_schedule = ARGV[2] == ''\n",
        refuses("push", "queue:next"),
    ),
    push(
        "push-type-queue",
        "With a queue of another type the number counts though nothing was pushed: a repetition says it was.",
        "if wrong then return type_error(KEYS[3], to_schedule and 'zset' or 'list') end\n",
        "",
        refuses("push", "queue:next"),
        refuses("schedule", "schedule"),
    ),
    push(
        "push-type-queues",
        "With a `queues` of another type the push is made, and raises.",
        "  if wrong then return type_error(KEYS[2], 'set') end\n",
        "",
        refuses("push", "queues"),
    ),
    push(
        "push-queue-not-listed",
        "Sidekiq's Web UI does not show the queue.",
        "if listed == 0 then redis.call('SADD', KEYS[2], ARGV[2]) end\n",
        "",
        RULES + "test_a_push_lists_its_queue_again",
    ),
    promote(
        "promote-twice",
        "Two pollers push a due job twice.",
        "  elseif redis.call('ZREM', KEYS[1], member) == 1 then\n    moved = moved + 1\n    redis.call('SADD'",
        "  elseif redis.call('ZREM', KEYS[1], member) >= 0 then\n    moved = moved + 1\n    redis.call('SADD'",
        MEMBERS + "test_two_pollers_promote_a_job_once",
        twice("promote_schedule"),
    ),
    promote(
        "promote-buries-twice",
        "A member that a person has deleted comes back in dead.",
        "    elseif redis.call('ZREM', KEYS[1], member) == 1 then\n      moved = moved + 1\n      redis.call('ZADD'",
        "    elseif redis.call('ZREM', KEYS[1], member) >= 0 then\n      moved = moved + 1\n      redis.call('ZADD'",
        twice("promote_retry"),
    ),
    promote(
        "promote-type-queue",
        "With a queue of another type a due job leaves its set, and is lost.",
        "  elseif not type_is(KEYS[i], 'list') then\n    misplaced[#misplaced + 1] = i - 3\n",
        "",
        MEMBERS + "test_a_member_whose_queue_is_no_list_goes_to_dead",
    ),
    promote(
        "promote-type-dead",
        "With a dead of another type a bad member leaves its set, and is lost.",
        "    if not can_bury then\n      stuck[#stuck + 1] = i - 3\n    elseif redis",
        "    if redis",
        RULES + "test_a_bad_member_stays_while_dead_cannot_take_it",
    ),
    promote(
        "promote-type-queues",
        "With a `queues` of another type a due job is lost.",
        "  elseif not can_push then\n    stuck[#stuck + 1] = i - 3\n",
        "",
        POLLER + "test_with_queues_of_another_type_what_is_due_waits",
    ),
    promote(
        "promote-type-set",
        "A set that became another type between two looks ends in an error of Lua.",
        "local readable = type_is(KEYS[1], 'zset')\n",
        "local readable = true\n",
        RULES + "test_a_set_that_became_another_type_is_not_promoted_from",
    ),
    promote(
        "promote-queue-unknown",
        "Sidekiq's Web UI does not know the queue.",
        "    redis.call('SADD', KEYS[3], queue)\n",
        "",
        RULES + "test_a_promoted_job_makes_its_queue_known",
    ),
    due(
        "due-type",
        "A schedule of another type keeps retry from being looked at.",
        "  if not type_is(key, 'zset') then\n",
        "  if false then\n",
        POLLER + "test_a_set_of_another_type_keeps_no_other_back[schedule-retry]",
    ),
    due(
        "due-too-early",
        "Jobs are pushed before their time.",
        "redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT'",
        "redis.call('ZRANGEBYSCORE', key, '-inf', '+inf', 'LIMIT'",
        MEMBERS + "test_what_is_not_due_stays",
    ),
    flush(
        "flush-twice",
        "Counts whose reply was lost are added twice.",
        "if redis.pcall('GET', KEYS[1]) == ARGV[1] then return {} end\n",
        "",
        "integration/test_stats.py::test_counts_sent_twice_are_added_once",
    ),
    flush(
        "flush-key-of-another-type",
        "One key of another type ends the script in the middle, and the rest is added twice.",
        "  local reply = redis.pcall(command, key, ...)\n",
        "  local reply = redis.call(command, key, ...)\n",
        "integration/test_stats.py::test_a_key_of_another_type_is_left_alone",
    ),
    process(
        "process-types",
        "A record of another type is written half.",
        "  if kind and not type_is(KEYS[i], kind) then return type_error(KEYS[i], kind) end\n",
        "",
        refuses("show", "host:1:abc"),
        refuses("show", "processes"),
    ),
    process(
        "process-without-ttl",
        "A process that was killed stays on the Busy page for ever.",
        "redis.call('PEXPIRE', KEYS[2], ARGV[1])\n",
        "",
        expires("show"),
    ),
]
