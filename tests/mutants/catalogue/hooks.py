"""Python: the hooks of a job, and the messages that wait for a thread."""

from __future__ import annotations

from ..mutant import in_file

table = in_file("broker/hook_table.py")
work_queue = in_file("broker/work_queue.py")

TABLE = "unit/test_hook_table.py::"
WORK = "unit/test_work_queue.py::"

HOOKS = [
    table(
        "hooks-of-an-old-list",
        "Middleware that takes the place of another is not called.",
        "        if seen != broker.middleware:\n",
        "        if len(seen) != len(broker.middleware):\n",
        TABLE + "test_a_change_of_the_list_counts_at_once",
    ),
    table(
        "hooks-set-later",
        "A hook that is set while a worker runs is never called.",
        "        if time.monotonic() - self._made > RENEW:\n",
        "        if False:\n",
        TABLE + "test_a_hook_that_is_set_later_is_found_with_a_fetch",
    ),
    table(
        "hooks-set-later-prepared",
        "A hook that is set while a worker waits for jobs is never called.",
        "            self._table, self._made = (middleware, table), made\n",
        "            self._made = made\n",
        TABLE + "test_a_hook_that_is_set_later_is_found_by_a_process_that_waits",
    ),
    table(
        "hooks-of-a-patched-class",
        "A program that replaces a hook of Dramatiq's middleware is not called.",
        "_function(middleware, hook) is not found.function",
        "False",
        TABLE + "test_a_hook_that_was_replaced_is_called",
    ),
    table(
        "hooks-by-the-middleware",
        "AgeLimit(max_age=...) drops nothing.",
        " or getattr(middleware, name, None)",
        "",
        TABLE + "test_hooks_that_look_at_an_option",
    ),
    table(
        "hooks-by-the-actor",
        "An actor's on_failure is not sent.",
        "actor.options.get(name) or ",
        "",
        TABLE + "test_hooks_that_look_at_an_option",
    ),
    table(
        "hooks-of-unknown-names",
        "Names from payloads fill the memory of a worker.",
        "            if actor_name in broker.actors:\n",
        "            if True:\n",
        TABLE + "test_names_of_unknown_actors_are_not_kept",
    ),
    table(
        "hooks-of-a-subclass",
        "A hook that a subclass adds to a WorkflowMiddleware is not called.",
        '    return function is getattr(Middleware, hook) or getattr(function, "for_other_brokers", False) is True\n',
        '    marked = getattr(getattr(type(middleware).__mro__[1], hook, None), "for_other_brokers", False)\n'
        '    return function is getattr(Middleware, hook) or hasattr(function, "for_other_brokers") or marked\n',
        TABLE + "test_a_hook_for_other_brokers_is_called_if_a_subclass_has_its_own",
    ),
    work_queue(
        "work-asleep-beside-a-job",
        "A job that comes while a thread goes to sleep waits until the thread's time is up.",
        "            if item is None:\n                sleeper.acquire",
        "            if True:\n                sleeper.acquire",
        WORK + "test_an_item_that_comes_while_a_thread_goes_to_sleep_is_taken",
    ),
    work_queue(
        "work-of-an-interrupted-thread",
        "A job whose thread was interrupted waits until another thread's time is up.",
        "                if self.items:\n                    self._wake()\n",
        "                pass\n",
        WORK + "test_a_thread_that_is_interrupted_leaves_its_item_to_another",
    ),
]
