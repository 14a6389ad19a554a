"""Explanations and the doctor: a cause must not be missed, and a fix must run each remaining step once."""

from __future__ import annotations

from ..mutant import in_file

_EXPLAIN = "integration/test_explain.py::"
_DOCTOR = "integration/test_doctor.py::"
_WAY = _EXPLAIN + "test_cause_and_cure_of_each_way_to_break_a_run"

search = in_file("store/job_search.py")
finder = in_file("runs/job_finder.py")
explanation = in_file("runs/explanation.py")
diagnosis = in_file("runs/diagnosis.py")
consumers = in_file("runs/consumers.py")
remedies = in_file("runs/remedies.py")
retrying = in_file("runs/run_retry.py")
resume = in_file("workflow/resume.py")
mark_dead = in_file("store/lua/mark_dead.lua")

EXPLAINED = [
    search(
        "glance-without-retry",
        "A job that failed during the search is shown as lost.",
        '        if place.kind == "retry":\n',
        "        if False:\n",
        _EXPLAIN + "test_a_second_look_finds_what_has_moved",
    ),
    search(
        "glance-without-tail",
        "A job that went back to a large queue during the search is shown as lost.",
        '("0", str(tail))]\n',
        '("0", "0")]\n',
        _EXPLAIN + "test_a_second_look_finds_what_has_moved",
    ),
    finder(
        "finder-dead-at-once",
        "The job of a dead step is shown as deleted, since it was not searched for.",
        "            if self.thorough:\n                missing +=",
        "            if False:\n                missing +=",
        _EXPLAIN + "test_the_job_of_a_dead_step_is_found_behind_a_large_queue",
    ),
    explanation(
        "explain-all-barriers-there",
        "A barrier that is gone is not named.",
        "        return {jid: barriers & gone for jid",
        "        return {jid: set() for jid",
        _EXPLAIN + "test_a_barrier_that_a_queued_step_needs_is_looked_for",
    ),
    diagnosis(
        "diagnosis-any-queue",
        "A queue that no process serves is not named.",
        "        if not patient.step.queue or self.consumers.of(patient.step.queue):\n",
        "        if True:\n",
        _WAY + "[no_consumer]",
    ),
    diagnosis(
        "diagnosis-any-actor",
        "An actor that no process has is not named.",
        "        if not known or patient.step.name in known or is_own(patient.step.name) or patient.step.name == END:\n",
        "        if True:\n",
        _WAY + "[unknown_actor]",
    ),
    diagnosis(
        "diagnosis-all-beat",
        "A worker that was killed is shown as running.",
        "        if silence > min(SILENCE, self.consumers.timeout):\n",
        "        if False:\n",
        _WAY + "[dead_worker]",
    ),
    consumers(
        "consumers-silent-ruby",
        "A Ruby process that was killed counts as alive for a minute.",
        "        return beat is not None and self.now - beat > RUBY_SILENCE\n",
        "        return False\n",
        _EXPLAIN + "test_a_job_at_a_ruby_process_that_beats_no_more",
    ),
    remedies(
        "release-one-member",
        "The step after a group starts before the members that are left.",
        "            yield max(0, left - spare)\n",
        "            yield 1\n",
        _DOCTOR + "test_members_that_have_not_run_are_counted",
    ),
    retrying(
        "rerun-counts",
        "A step that a person lets run again has one retry fewer.",
        '        fields["retry_count"] = count - 1\n',
        "        pass\n",
        _DOCTOR + "test_dead_steps_run_again",
    ),
    resume(
        "release-stays-failed",
        "A run whose dead step was released stays in the list of failed ones.",
        '{STEP_KEY: payload.step, "retry_count": 0}',
        "{STEP_KEY: payload.step}",
        _DOCTOR + "test_a_released_step_has_failed_no_more",
    ),
    mark_dead(
        "mark-dead-after-the-end",
        "A run that has ended is recorded as failed.",
        "if state ~= 'running' and state ~= 'failed' then return {'GONE'} end\n",
        "if not state then return {'GONE'} end\n",
        _DOCTOR + "test_a_run_that_has_ended_is_not_recorded_as_failed",
    ),
]
