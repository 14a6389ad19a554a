"""Stored chains: which jobs refer to them, and how long they live."""

from __future__ import annotations

from ..mutant import in_file
from .tests import LARGE, REFERENCES, RULES, STORAGE, expires

store = in_file("store/lua/store_callbacks.lua")
read = in_file("store/lua/read_callbacks.lua")
own = in_file("store/lua/own_callbacks.lua")
release = in_file("store/lua/release_callbacks.lua")
references = in_file("workflow/stack_references.py")
stored = in_file("store/chains.py")
linked = in_file("wire/references.py")
precheck = in_file("workflow/precheck.py")
stacks = in_file("workflow/stacks.py")

TO_RUBY = REFERENCES + "test_ruby_starts_whole_trees_and_the_same_jobs_run"
RELEASED = RULES + "test_a_chain_that_is_released_expires_where_it_belongs_to_one_run"

CHAINS = [
    store(
        "store-without-ttl",
        "Each stored chain stays for ever.",
        "redis.call('EXPIRE', key, ttl)\nreturn 1",
        "return 1",
        expires("store_chain"),
    ),
    store(
        "store-does-not-prolong",
        "A chain that a second run refers to expires with the first.",
        "if prolong_volatile(key, ttl, 0) then return 0 end\n",
        "if redis.call('EXISTS', key) == 1 then return 0 end\n",
        STORAGE + "test_what_is_stored_already_lives_no_shorter",
        RULES + "test_a_stored_chain_is_prolonged_when_it_is_stored_again",
    ),
    read(
        "read-does-not-prolong",
        "A stored chain expires while its run moves.",
        "for _, chain in ipairs(KEYS) do prolong_volatile(chain, ttl, SLACK) end\n",
        "",
        STORAGE + "test_it_lives_on_while_the_run_moves",
    ),
    read(
        "read-large-by-script",
        "A step of megabytes is read by the script: Redis stands still meanwhile.",
        "      if #found == 0 then return {false} end\n      break\n",
        "",
        LARGE + "test_a_large_step_is_not_read_by_a_script",
    ),
    read(
        "read-large-with-the-others",
        "A step of megabytes is read by the script with those before it.",
        "largest < large and ",
        "",
        LARGE + "test_a_large_step_is_not_read_by_a_script",
    ),
    read(
        "read-more-than-fits",
        "A read of many steps takes as many as there are, of any size.",
        "math.floor((budget - size) / largest)",
        "1000",
        LARGE + "test_as_many_steps_are_read_as_fit[largest-known]",
    ),
    read(
        "read-each-of-a-new-chain",
        "Each step costs two commands more.",
        "then return read_fast(largest) end",
        "then return read_each() end",
        LARGE + "test_steps_are_read_with_one_command",
    ),
    read(
        "read-without-the-largest",
        "A chain that version 0.1 stored cannot be read.",
        "if largest and largest > 0 and",
        "if largest > 0 and",
        LARGE + "test_as_many_steps_are_read_as_fit[of-version-0.1]",
    ),
    store(
        "store-wrong-largest",
        "The reads of a chain's steps are larger than they may be.",
        "  largest = math.max(largest, #ARGV[i])\n",
        "  largest = #ARGV[i]\n",
        STORAGE + "test_the_size_of_the_largest_step_is_stored",
    ),
    own(
        "own-without-ttl",
        "The chain of each large workflow stays for ever.",
        "prolong(KEYS[1], tonumber(ARGV[1]))\n",
        "",
        expires("own_chain"),
    ),
    own(
        "own-without-largest",
        "Each step of a long chain costs two commands more.",
        ", 'largest', ARGV[3]",
        "",
        LARGE + "test_steps_are_read_with_one_command",
    ),
    release(
        "release-shared-chain",
        "The end of one run lets a chain expire that others refer to.",
        "if redis.call('HEXISTS', key, 'barrier') == 0 then return 0 end\n",
        "",
        RELEASED,
    ),
    release(
        "release-type",
        "A key of another type ends in an error after the step was acknowledged.",
        "if redis.call('TYPE', key).ok ~= 'hash' then return 0 end\n",
        "",
        RELEASED,
    ),
    release(
        "release-prolongs",
        "Each duplicate keeps the chain for another day.",
        "if left ~= -1 and left <= ttl then return 0 end\n",
        "",
        RELEASED,
    ),
    references(
        "reference-to-ruby",
        "A Ruby step gets a reference, which the gem does not know: its run ends there.",
        "return self._known[key]",
        "return True",
        TO_RUBY,
    ),
    references(
        "reference-below-ruby",
        "A Ruby step that runs last in a tree starts the reference below it.",
        "                python = self._python_completes(callback)\n",
        "                pass\n",
        LARGE + "test_ruby_never_starts_a_reference",
        TO_RUBY,
    ),
    references(
        "reference-above-python",
        "A Ruby step gets a reference to the steps that it starts itself.",
        "            held.append(self._short_one(callback) if python else callback)\n",
        "            held.append(self._short_one(callback))\n",
        TO_RUBY,
    ),
    references(
        "reference-after-ruby",
        "A Ruby step in the middle of a stored chain starts the reference to its rest.",
        "            if self._ends_in_python(child):\n                steps",
        "            if True:\n                steps",
        LARGE + "test_ruby_never_starts_a_reference",
        TO_RUBY,
    ),
    references(
        "reference-after-empty",
        "Ruby starts a group with an empty member, completes it, and starts the reference behind it.",
        '        if kind == "reference" or not node["children"]:\n            return False\n',
        '        if kind == "reference":\n            return False\n',
        LARGE + "test_a_ruby_step_carries_whole_the_steps_up_to_one_of_pythons",
    ),
    references(
        "reference-behind-ruby-is-not-made",
        "The first Ruby steps of a long chain carry all of it.",
        "                return [first, *children[index:]]\n",
        "                return children\n",
        LARGE + "test_a_ruby_step_carries_whole_the_steps_up_to_one_of_pythons",
        REFERENCES + "test_a_step_of_a_long_mixed_chain_costs_what_one_of_a_short_chain_does",
    ),
    references(
        "reference-again-and-again",
        "Where the languages alternate in groups, a long rest is stored after each Ruby step.",
        " or 4 * _size(children[0]) >= _size(_chain(children)):",
        " or True:",
        LARGE + "test_ruby_never_starts_a_reference",
    ),
    references(
        "reference-that-was-expanded",
        "Each Python step stores the rest that an older companion has expanded.",
        "        return not all(map(self._all_python, joined)) and may_refer(_chain(children), LARGE)\n",
        "        return False\n",
        LARGE + "test_a_tree_that_a_companion_has_put_in_place_of_its_reference",
    ),
    references(
        "barrier-below-ruby-expires",
        "The barrier behind Ruby's first steps expires while they run.",
        "                self.allowance = max(self.allowance, _allowance(first))\n",
        "",
        LARGE + "test_barriers_and_chains_outlive_ruby_steps_that_do_not_extend_them",
    ),
    references(
        "chain-below-ruby-expires",
        "A stored chain expires while Ruby's steps run.",
        ", extra=max(allowances, default=0) * 1000)",
        ")",
        LARGE + "test_barriers_and_chains_outlive_ruby_steps_that_do_not_extend_them",
    ),
    references(
        "reference-is-not-written",
        "Payloads refer to what is not stored.",
        "            self.chains.write(self.pending, ttl)\n",
        "            pass\n",
        LARGE + "test_a_group_that_follows_a_step_is_not_in_its_payload",
    ),
    linked(
        "reference-of-two-runs",
        "Two runs share a chain that the first one lets expire.",
        'digest(f"{owner}:{sha}".encode()) if owner else sha',
        "sha",
        LARGE + "test_each_run_has_chains_of_its_own",
    ),
    precheck(
        "reference-where-ruby-consumes",
        "A Ruby process takes a job with a reference from a shared queue.",
        "        if queue in fleet.ruby:\n            return False\n",
        "",
        LARGE + "test_where_ruby_takes_from_the_queue",
    ),
    stacks(
        "chain-is-not-released",
        "The tree of each large workflow stays for weeks after its run.",
        "if plan.consumed and self.refers_large:",
        "if False:",
        LARGE + "test_it_expires_a_day_after_its_last_step_was_started",
    ),
    stored(
        "own-values-before-their-ttl",
        "A crash while a large chain is written leaves it for ever.",
        "        self.connection.call(*scripts.OWN_CALLBACKS.command((key,), (life, chain.barrier, largest)))\n",
        "",
        TO_RUBY,
    ),
]
