"""Runs as they are read: a step must not be shown as done, lost or dead if it is not."""

from __future__ import annotations

from ..mutant import in_file

_RUNS = "integration/test_runs.py::"
_CODES = "unit/test_step_codes.py::"
_TREE = "unit/test_run_tree.py::"

find = in_file("store/lua/find_jobs.lua")
search = in_file("store/job_search.py")
lists = in_file("store/run_lists.py")
index = in_file("runs/run_index.py")
reader = in_file("runs/run_reader.py")
codes = in_file("runs/step_codes.py")
marks = in_file("runs/step_marks.py")
sightings = in_file("runs/sightings.py")
query = in_file("runs/query.py")
writer = in_file("wire/run_tree.py")
nodes = in_file("wire/tree_nodes.py")

READING = [
    find(
        "find-jobs-first-slice",
        "A part ends behind its first slice, and the rest of a queue is not searched.",
        "    more = #slice == at_once\n",
        "    more = false\n",
        _RUNS + "test_a_job_is_found_among_many",
    ),
    find(
        "find-jobs-without-limit-of-bytes",
        "One call reads a queue of large payloads: Redis stands still meanwhile.",
        "  while more and read < most and bytes < most_bytes do\n",
        "  while more and read < most do\n",
        _RUNS + "test_large_payloads_are_searched_in_small_parts",
    ),
    find(
        "find-jobs-pattern",
        "The id of a run is read as a pattern.",
        "      local payload = slice[index]\n      bytes = bytes + #payload\n      if find(payload, text, 1, true) then\n",
        "      local payload = slice[index]\n      bytes = bytes + #payload\n      if find(payload, text) then\n",
        _RUNS + "test_a_run_id_is_found_as_json_writes_it",
    ),
    find(
        "find-jobs-first-part-of-a-hash",
        "Of many jobs in flight, some are not found.",
        "  if cursor ~= '0' then found[1] = cursor end\n",
        "",
        _RUNS + "test_many_jobs_in_flight_are_found",
    ),
    search(
        "search-without-rights",
        "Steps are shown as lost that are in places which the Redis user may not read.",
        "        return None\n    raise reply\n",
        "        return None\n    return None\n",
        _RUNS + "test_a_place_that_may_not_be_read_is_an_error",
    ),
    search(
        "search-short-id",
        "Half of all payloads are read, since they hold the letters of a short run id.",
        "    if len(needle) > SHORT:\n",
        "    if True:\n",
        _RUNS + "test_a_short_run_id_is_not_found_in_each_payload",
    ),
    search(
        "search-not-in-flight",
        "A step that runs is shown as lost.",
        '    found += [Place("flight", keys.in_flight(member), member) for member in members if keys.is_member(member)]\n',
        "",
        _RUNS + "test_the_place_of_each_job_is_found",
    ),
    search(
        "search-not-in-fanouts",
        "The members of a group that are not in their queue yet are shown as lost.",
        '    found += [Place("fanout", keys.fanout(fanout), fanout) for fanout in pending(connection)]\n',
        "",
        _RUNS + "test_the_place_of_each_job_is_found",
    ),
    search(
        "search-rest-of-small-places",
        "A short queue of large payloads is searched in part.",
        "        if part.cursor:\n            for jobs in",
        "        if False:\n            for jobs in",
        _RUNS + "test_the_rest_of_a_short_queue_of_large_payloads_is_searched",
    ),
    search(
        "search-small-places-once",
        "A job that is fetched while its large queue is searched is shown as lost.",
        "    if large:\n",
        "    if False:\n",
        _RUNS + "test_a_job_that_leaves_a_large_queue_is_found_in_flight",
    ),
    sightings(
        "sighting-of-another-run",
        "A job that has the id of a run in its arguments is shown as its step.",
        "            if fields is not None and self._is_ours(fields):\n                sighting = _in_place",
        "            if fields is not None:\n                sighting = _in_place",
        _RUNS + "test_jobs_of_other_runs_that_name_this_one_are_left_out",
    ),
    sightings(
        "sighting-fetched-ahead",
        "A job that was fetched ahead is shown as running.",
        "        if state in (keys.NOT_BEGUN, keys.SUSPECT):\n",
        "        if False:\n",
        _RUNS + "test_the_place_of_each_job_is_found",
    ),
    codes(
        "codes-done-is-overwritten",
        "A step that is done is shown as dead, since its job is in dead, too.",
        " and self.codes[position] != DONE:\n",
        ":\n",
        _CODES + "test_a_step_that_is_done_stays_done",
    ),
    codes(
        "codes-retried-is-dead",
        "A dead step that was retried keeps its run failed.",
        " and self.codes[position] == NONE:\n",
        ":\n",
        _CODES + "test_a_dead_step_whose_job_is_elsewhere_is_not_dead",
    ),
    codes(
        "codes-bits-reversed",
        "The bits of a byte are read from the wrong end: other steps are shown as done.",
        "byte & (128 >> bit)",
        "byte & (1 << bit)",
        _CODES + "test_bits_are_read_as_redis_writes_them",
    ),
    codes(
        "codes-nothing-inferred",
        "The steps of Ruby in front of a step that runs are shown as lost.",
        "        self._fill(first, start, INFERRED)\n",
        "",
        _CODES + "test_what_ruby_has_done_is_inferred_and_nothing_else",
    ),
    codes(
        "codes-inferred-in-a-group",
        "The siblings of a step that is done are shown as done.",
        '        elif node.kind == "group":\n            for child, start in zip(node.children, node.starts):\n                self._infer(',
        '        elif node.kind == "no":\n            for child, start in zip(node.children, node.starts):\n                self._infer(',
        _CODES + "test_without_ruby_each_state_is_exact",
    ),
    codes(
        "codes-repetitions-at-once",
        "All repetitions of a child of a chain are due at once.",
        "            if isinstance(child, RepeatedNode):\n                each = child.node\n",
        "            if False:\n                each = child.node\n",
        _CODES + "test_repetitions_of_a_chain_follow_each_other",
    ),
    codes(
        "codes-later-steps-are-lost",
        "Steps whose turn has not come are shown as lost.",
        "            self._fill(start + child.count, first + node.count, PENDING)\n            return\n",
        "",
        _CODES + "test_without_ruby_each_state_is_exact",
    ),
    reader(
        "reader-one-look",
        "A run is stuck if one search missed a job that moved.",
        "        marks: object = None\n        finder",
        "        marks: object = self._record(run_id).marks\n        finder",
        _RUNS + "test_a_job_that_moves_during_the_search_is_found",
    ),
    reader(
        "reader-lost-at-once",
        "A step whose job moved during the search is shown as lost.",
        "            if view.is_certain and not view.lost:\n",
        "            if view.is_certain:\n",
        _RUNS + "test_a_step_that_was_not_found_is_looked_for_again",
    ),
    reader(
        "reader-old-marks",
        "A step that ends during the search is shown as lost.",
        "        record = after or record\n",
        "",
        _RUNS + "test_a_step_that_ends_during_the_search_is_done",
    ),
    reader(
        "reader-ruby-at-once",
        "A run is done or stuck while a Ruby process has just begun its step.",
        "        if self._may_begin(view.waits_for) and self._missing_for(record) < RUBY_BEAT:\n",
        "        if False:\n",
        _RUNS + "test_a_ruby_process_may_have_begun_a_step_unseen",
    ),
    reader(
        "reader-beat-once",
        "A Ruby process is given the time of one beat for all steps of a run.",
        "        if marks != record.marks:\n            if len",
        "        if marks is None:\n            if len",
        _RUNS + "test_the_beat_is_waited_for_again_after_a_step",
    ),
    reader(
        "reader-barrier-waits",
        "A run whose Ruby step was lost in front of others is done.",
        "    if codes is not None and codes.count(LOST, PENDING):\n",
        "    if codes is not None and codes.count(LOST):\n",
        _RUNS + "test_a_barrier_that_still_waits_makes_a_run_stuck",
    ),
    marks(
        "reader-noop-of-a-delay",
        "A step behind a delay without steps is shown as lost.",
        "        codes.replace(LOST, PENDING)\n    for code in",
        "        pass\n    for code in",
        _RUNS + "test_the_job_of_a_delayed_empty_group_makes_it_wait",
    ),
    reader(
        "reader-other-broker",
        "A run is stuck whose step waits on another broker.",
        "            if self.is_elsewhere:\n                break\n",
        "",
        _RUNS + "test_steps_on_another_broker_are_not_lost",
    ),
    lists(
        "records-ties",
        "Runs that started at once are listed twice, or not at all.",
        "        offset = offset + PAGE if at_end == last else 0\n",
        "        offset = offset + PAGE + 1 if at_end == last else 0\n",
        _RUNS + "test_more_runs_than_one_read_started_at_once",
    ),
    lists(
        "records-page-begins-again",
        "A page begins with runs of the page before.",
        "        if limit is None or order(position) < order(limit):\n",
        "        if True:\n",
        _RUNS + "test_a_list_is_read_in_pages",
    ),
    index(
        "index-keeps-expired",
        "Runs whose records have expired stay in the indexes for ever.",
        "    run_lists.forget(connection, wanted.indexes or _all_states(), gone)\n",
        "",
        _RUNS + "test_members_whose_record_has_expired_are_dropped",
    ),
    index(
        "index-twice",
        "A run that changes its state is listed twice.",
        "    for _, same in itertools.groupby(merged, key=run_lists.order):\n        yield next(same)\n",
        "    yield from merged\n",
        _RUNS + "test_a_run_in_two_states_is_listed_once",
    ),
    index(
        "index-stale-state",
        "A run is listed under a state that it has left.",
        " if wanted.state in (None, head.state)",
        "",
        _RUNS + "test_a_run_in_two_states_is_listed_once",
    ),
    query(
        "wait-searches-always",
        "Waiting searches all queues again and again.",
        "or time.monotonic() >= search_at or left <= 0:",
        "or True:",
        _RUNS + "test_waiting_reads_little",
    ),
    query(
        "wait-trusts-failed",
        "Waiting ends while a step that was retried runs.",
        "                if self.result.at_rest:\n",
        '                if self.result.at_rest or recorded == "failed":\n',
        _RUNS + "test_wait_goes_on_while_a_dead_step_runs_again",
    ),
    query(
        "wait-never-searches",
        "Waiting never ends for a run that is stuck.",
        "or time.monotonic() >= search_at or left <= 0:",
        "or left <= 0:",
        _RUNS + "test_wait_finds_a_run_that_is_stuck",
    ),
    writer(
        "tree-folds-queues",
        "Siblings of different queues are folded.",
        '        key = (job["class"], job.get("queue"), job.get("wrapped"), job.get(DEATH_KEY) == COUNTS_AS_DONE)\n',
        '        key = (job["class"], None, job.get("wrapped"), job.get(DEATH_KEY) == COUNTS_AS_DONE)\n',
        _TREE + "test_more_than_twenty_equal_siblings_are_folded",
    ),
    nodes(
        "tree-repetitions-of-one-step",
        "The repetitions of a chain of steps have the numbers of the first one.",
        "            repetition, offset = divmod(offset, node.node.count)\n",
        "            repetition, offset = divmod(offset, 1)\n",
        _TREE + "test_a_step_is_found_by_its_number",
    ),
]
