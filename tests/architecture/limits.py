"""All limits of ``python -m tests.architecture``: the only place to change one.

``limit`` fails ``make check``.  ``goal`` is where it has to come to: lower the
limit as soon as the value allows it, and never raise it.
"""

from __future__ import annotations

import attrs

PACKAGE = "dramatiq_sidekiq_flow"

#: Where the trip of a finished job begins, and the parameter that is followed.
TRIP_ENTRY = "workflow/completion.py:Completion.advance"
TRIP_PARAMETER = "message"

#: The page that lists the files of the trip.
TRIP_PAGE = "docs/how-it-works.md"


@attrs.frozen
class Limit:
    """What a measure may be at most, or between ``least`` and ``limit``."""

    title: str
    limit: float
    goal: float
    least: float = 0


LIMITS = {
    "trip_files": Limit("trip of a finished job: files", 8, 8),
    "trip_stops": Limit("trip of a finished job: stops", 10, 20),
    "trip_page": Limit("lines of the page's list that are not the trip's", 0, 0),
    "page_files": Limit("files that the page names and that do not exist", 0, 0),
    "cycles": Limit("files in import cycles, type checking counted", 0, 0),
    "replies": Limit("reply[0] outside store/", 0, 0),
    "complexity": Limit("radon: average", 2.7, 2.7),
    "rank_d": Limit("radon: blocks D or worse", 0, 0),
    "rank_c": Limit("radon: blocks of rank C", 3, 10),
    "median": Limit("median length of a function, in lines", 6, 6, least=5),
    "wording": Limit("words to avoid (WORDS in measures.py)", 9, 9),
    "long_modules": Limit("modules over 350 lines", 0, 0),
    "long_ruby": Limit("Ruby files over 250 lines", 0, 0),
    "names": Limit("file names that stand twice", 0, 0),
    "unused": Limit("names that nothing uses", 0, 0),
}

LONGEST_MODULE = 350
LONGEST_RUBY = 250

#: Built from others, so as long as it has to be.
BUILT_RUBY = ("sidekiq_flow_companion.rb",)

#: Names that vulture finds unused, by who uses them.
USED = {
    "Dramatiq calls its hooks and its broker's methods": (
        "after_consumer_thread_boot",
        "after_enqueue",
        "after_nack",
        "after_process_boot",
        "after_skip_message",
        "after_worker_boot",
        "before_ack",
        "before_nack",
        "consume",
        "declare_queue",
        "flush_all",
        "get_nowait",
        "unfinished_tasks",
    ),
    "the standard library or attrs calls or reads them": (
        "__dir__",
        "__getattr__",
        "_commands",
        "_ttl",
        "_walk",
        "maxdict",
        "maxlevel",
        "maxlist",
        "maxlong",
        "maxother",
        "maxstring",
        "maxtuple",
        "returncode",
    ),
    "only tests look at them": ("address", "lasts", "qsize", "tracks"),
    "templates of the web page read them": ("choices", "is_filtered", "is_grave", "says", "static"),
    "msgspec fills in the fields of a schema": ("memory_namespace", "swf_group", "swf_on_death", "wrapped"),
    "users call what the documentation names": (
        "assert_order",
        "attempt",
        "bridge_of",
        "check_assignment",
        "enqueue_many",
        "explain_async",
        "cancel_async",
        "signal_async",
        "pause_async",
        "resume_async",
        "retry_async",
        "get_async",
        "list_async",
        "load_defaults",
        "mermaid",
        "pass_deadline",
        "pause_queue",
        "unpause_queue",
        "wait_async",
        "within",
    ),
}
