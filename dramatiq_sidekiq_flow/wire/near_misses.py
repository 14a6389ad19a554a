"""Common mistakes of callers, and errors that name the correct form."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import InvalidOptions, InvalidWorkflow
from .near_names import near

#: Options of the library and of Sidekiq.
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

#: Prefixes of the keys of a job's context.
CONTEXT_PREFIXES = ("cattr_", "x-datadog-")

#: Names from Dramatiq, Celery and this library that are not options of a job -> the correct form.
INSTEAD = {
    "delay": "WithDelay(Job(...), milliseconds)",
    "countdown": "WithDelay(Job(...), milliseconds)",
    "eta": "WithDelay(Job(...), milliseconds)",
    "queue_name": "queue=",
    "max_retries": "retry=",
    "retries": "retry=",
    "namespace": "memory_namespace=",
}

#: Methods that enqueue immediately, in either language.
ENQUEUES = frozenset(("send", "send_with_options", "delay", "apply_async", "perform_async", "perform_in", "enqueue"))

#: A delay of fewer milliseconds may have been meant in seconds.
SHORT_DELAY = 100


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse misspelt names of known options.  Any other name may be an option of Sidekiq, and is accepted.

    Raises:
      InvalidOptions: if a name is misspelt; the message names the correct one.
    """
    for name, value in options.items():
        if name in KNOWN or name.startswith(CONTEXT_PREFIXES):
            continue
        if name in INSTEAD:
            raise InvalidOptions(f"{name}= is not an option of a job: write {INSTEAD[name]}.", value)
        similar = near(name, KNOWN, 1)
        if similar:
            raise InvalidOptions(
                f"{name}= is not an option of a job: write {similar[0]}=. If an option really has this name, set it "
                "in the class's sidekiq_options.",
                value,
            )


def check_children(kind: str, children: tuple[Any, ...]) -> None:
    """Refuse a list of nodes in place of nodes.

    Raises:
      InvalidWorkflow: if a child is a list of nodes; the message shows ``*nodes``.
    """
    for found in set(map(type, children)):
        if issubclass(found, (list, tuple, set, frozenset, Iterator)):
            child = next(child for child in children if type(child) is found)
            raise InvalidWorkflow(
                f"{kind} takes nodes one by one, not a {found.__name__} of them: {kind}(*nodes).", child
            )


def warn_of_short(delay: float) -> None:
    """Warn of a delay that may have been meant in seconds, once for each place in the program."""
    if 0 < delay < SHORT_DELAY:
        warnings.warn(
            f"WithDelay(..., {delay}) waits {delay} milliseconds. For seconds: timedelta(seconds={delay}).",
            stacklevel=3,
        )


def no_attribute(owner: str, name: str, instead: str) -> AttributeError:
    """Make the error for a missing attribute.  For the name of a method that enqueues, it shows the correct call."""
    if name in ENQUEUES:
        return AttributeError(f"{owner} has no {name}(): it is for steps of workflows. {instead}", name=name)
    return AttributeError(f"{owner} has no attribute {name!r}.", name=name)


def what_it_is(node: Any) -> str:
    """Describe a value that is not a node, and the correct form; return "" for an unknown value."""
    return _hint_for_dramatiq(node) or _hint_for_other(node)


def _hint_for_dramatiq(node: Any) -> str:
    """Describe an actor, a pipeline or a group of Dramatiq; return "" for any other value."""
    kind = type(node).__name__
    if kind in _COMPOSITIONS and hasattr(node, "run"):
        return f" A dramatiq.{kind} is enqueued at once; write {_COMPOSITIONS[kind]}(*messages)."
    if hasattr(node, "message_with_options"):
        return f" It is the actor; write {getattr(node, 'actor_name', 'actor')}.message(...)."
    return ""


def _hint_for_other(node: Any) -> str:
    """Describe a class, a list of nodes or a workflow; return "" for any other value."""
    if isinstance(node, type):
        return " It is a class; call it."
    if isinstance(node, Iterable) and not isinstance(node, (str, bytes, Mapping)):
        return " Write Chain(*nodes) or Group(*nodes)."
    if hasattr(node, "node") and hasattr(node, "run"):
        return " It is a workflow; put its node here: workflow.node."
    return ""


#: Dramatiq's compositions -> the nodes to write instead.
_COMPOSITIONS = {"pipeline": "Chain", "group": "Group"}
