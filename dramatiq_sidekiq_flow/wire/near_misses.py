"""What callers write when they mean something else, and what to write instead."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import InvalidOptions, InvalidWorkflow
from .near_names import near

#: Options that the library or Sidekiq know.
KNOWN = frozenset(
    (
        "backtrace",
        "cattr",
        "dead",
        "display_class",
        "expires_in",
        "jid",
        "locale",
        "memory_namespace",
        "queue",
        "retry",
        "retry_for",
        "retry_queue",
        "tags",
        "unique_for",
        "unique_until",
        "wrapped",
    )
)

#: Keys of a job's context that come in any number.
CONTEXT_PREFIXES = ("cattr_", "x-datadog-")

#: Words of Dramatiq, Celery and this library that mean no option of a job here.
INSTEAD = {
    "delay": "WithDelay(Job(...), milliseconds)",
    "countdown": "WithDelay(Job(...), milliseconds)",
    "eta": "WithDelay(Job(...), milliseconds)",
    "queue_name": "queue=",
    "max_retries": "retry=",
    "retries": "retry=",
    "namespace": "memory_namespace=",
}

#: Calls that enqueue at once, in either language.
ENQUEUES = frozenset(("send", "send_with_options", "delay", "apply_async", "perform_async", "perform_in", "enqueue"))

#: A delay below this, in milliseconds, was perhaps meant to be seconds.
SHORT_DELAY = 100


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse names of options that are nearly known ones; all others are Sidekiq's to know.

    Raises:
      InvalidOptions: naming what is meant.
    """
    for name, value in options.items():
        if name in KNOWN or name.startswith(CONTEXT_PREFIXES):
            continue
        if name in INSTEAD:
            raise InvalidOptions(f"{name}= is not an option of a job: write {INSTEAD[name]}.", value)
        found = near(name, KNOWN, 1)
        if found:
            raise InvalidOptions(
                f"{name}= is not an option of a job: write {found[0]}=. An option that is really named so can be set "
                "in the class's sidekiq_options.",
                value,
            )


def check_children(kind: str, children: tuple[Any, ...]) -> None:
    """Refuse a list of nodes in place of nodes.

    Raises:
      InvalidWorkflow: naming the star.
    """
    for child in children:
        if isinstance(child, (list, tuple, set, frozenset, Iterator)):
            raise InvalidWorkflow(
                f"{kind} takes nodes one by one, not a {type(child).__name__} of them: {kind}(*nodes).", child
            )


def warn_of_short(delay: float) -> None:
    """Warn of a delay that was perhaps meant to be seconds; once for each place in the program."""
    if 0 < delay < SHORT_DELAY:
        warnings.warn(
            f"WithDelay(..., {delay}) waits {delay} milliseconds. For seconds: timedelta(seconds={delay}).",
            stacklevel=3,
        )


def no_attribute(owner: str, name: str, instead: str) -> AttributeError:
    """The error of an attribute that is not there; for a call that enqueues it says what to write."""
    if name in ENQUEUES:
        return AttributeError(f"{owner} has no {name}(): it is for steps of workflows. {instead}", name=name)
    return AttributeError(f"{owner} has no attribute {name!r}.", name=name)


def what_it_is(node: Any) -> str:
    """What to write instead of something that is not a node; empty where nothing is known."""
    kind = type(node).__name__
    if kind in ("pipeline", "group") and hasattr(node, "run"):
        ours = "Chain" if kind == "pipeline" else "Group"
        return f" A dramatiq.{kind} is enqueued at once; write {ours}(*messages)."
    if hasattr(node, "message_with_options"):
        return f" It is the actor; write {getattr(node, 'actor_name', 'actor')}.message(...)."
    if isinstance(node, type):
        return " It is a class; call it."
    if isinstance(node, (list, tuple, Iterable)) and not isinstance(node, (str, bytes, Mapping)):
        return " Write Chain(*nodes) or Group(*nodes)."
    if hasattr(node, "node") and hasattr(node, "run"):
        return " It is a workflow; put its node here: workflow.node."
    return ""
