"""The job that ends a run whose last steps Ruby runs."""

from __future__ import annotations

from ..mutant import in_file

_END = "integration/test_run_end.py::"
_RUNS = _END + "test_the_run_ends"
_TREES = "unit/test_run_end.py::test_any_tree_ends_in_ruby_if_ruby_may_run_a_last_step"

start = in_file("workflow/start.py")
workflow = in_file("workflow/workflow.py")
place = in_file("workflow/replacement.py")
precheck = in_file("workflow/precheck.py")
end = in_file("wire/run_end.py")
marks = in_file("runs/step_marks.py")
reader = in_file("runs/run_reader.py")
testing = in_file("testing/flow.py")

ENDS = [
    start(
        "end-not-put",
        "A run whose last step plain Ruby runs is never done.",
        "    wire, info = _ended(engine, wire, info)\n",
        "",
        _RUNS,
    ),
    workflow(
        "end-only-of-python",
        "A run whose last step plain Ruby runs is never done.",
        "            self._ends_in_ruby = bool(unknown) and ends_in_ruby(wire, self.engine.is_ruby)\n",
        "",
        _RUNS,
    ),
    place(
        "end-not-behind-a-replacement",
        "A run whose last step was replaced by a tree that plain Ruby ends is never done.",
        "else _ended(_in_place(tree.wire, numbers, payload), job, tree)\n",
        "else _in_place(tree.wire, numbers, payload)\n",
        _RUNS,
    ),
    end(
        "end-without-fallbacks",
        "A run whose last step died, and whose fallback plain Ruby ends, is never done.",
        "    return is_ruby(job) or (fallback is not None and ends_in_ruby(fallback, is_ruby))\n",
        "    return is_ruby(job)\n",
        _TREES,
    ),
    end(
        "end-numbered",
        "The job that ends a run has the number of a step.",
        "        STEP_KEY: number,\n",
        "",
        _END + "test_a_member_in_python_gives_it_no_number",
    ),
    precheck(
        "end-only-on-own-queues",
        "A program without actors starts runs that plain Ruby never ends.",
        "        return found or min(fleet.python - fleet.ruby.keys(), default=None)\n",
        "        return found\n",
        _END + "test_a_worker_elsewhere_ends_the_run",
    ),
    marks(
        "end-shows-nothing",
        "All steps of a run are done, and some are shown as unknown.",
        "        _end(codes)\n    codes.settle_members()\n",
        "        pass\n    codes.settle_members()\n",
        _END + "test_a_run_whose_end_waits_for_a_worker",
    ),
    reader(
        "end-lost-is-done",
        "A run whose last job in Ruby was lost is shown as done.",
        '        state = "stuck"\n',
        "        pass\n",
        _END + "test_a_run_whose_end_waits_for_a_worker",
    ),
    testing(
        "end-is-a-step",
        "A test of an application sees a step that is not in its workflow.",
        "        if message.waits or message.actor_name in NOOP_CLASSES:\n",
        "        if message.waits:\n",
        "integration/test_flow_test.py::test_a_workflow_of_both_languages",
    ),
]
