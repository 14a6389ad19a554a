"""The workflow tree: jobs, chains, groups and delays.

A tree exists in two forms.  Callers build the frozen values of this module;
payloads carry the *wire form*, plain JSON, ``{"__type__": "chain",
"children": [...]}``.  :func:`dump` writes it, :func:`load` reads it, and
:func:`validate` checks it.  The plan works on the wire form, since each step
receives that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NoReturn, Union

import attrs

from ..errors import InvalidNode, InvalidWorkflow, cut
from . import codec
from .death_nodes import Catch, MayFail, is_plain, parts, with_policy
from .dialect import WORKFLOW
from .near_misses import check_children, check_names, no_attribute, warn_of_short, what_it_is
from .need import Needing, checked_need
from .option_rules import check_namespace, check_options
from .payload_fields import DEATH_KEY, GROUP_KEY
from .tree_schema import MAX_DELAY, tree_error

#: A node in its wire form.
Wire = dict[str, Any]

#: The class that the gem gives to a delayed empty chain or group; it also
#: carries steps whose actor has no Ruby name (see :func:`carry`).
NOOP_CLASS = WORKFLOW.noop_class

#: Name of a Ruby class, as Ruby looks it up.  Any other name can only belong to an actor.
_RUBY_CONSTANT = re.compile(r"[A-Z]\w*(::[A-Z]\w*)*", re.ASCII)


@attrs.frozen(init=False, repr=False)
class Job:
    """One job: a Ruby class, or an actor, by name.

    Parameters:
      job_class: Ruby constant (``"Docs::Extract"``) or actor name.
      *args: JSON values, the arguments of ``perform``.
      **options: Sidekiq's job options: ``queue``, ``retry``, ``tags``,
        ``backtrace``, ``dead``, ``retry_for`` (seconds), ``retry_queue``,
        ``jid`` (the job's id; generated at the push by default)...
        Options that are not given come from the class if it is known, else
        from Sidekiq's defaults (queue ``default``, retry ``True``).

    Raises:
      InvalidArguments: if JSON cannot carry an argument exactly.
      InvalidOptions: if an option is misspelt or has an invalid value.
      InvalidWorkflow: if the class has no name.
    """

    job_class: str
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __init__(self, job_class: str, *args: Any, **options: Any) -> None:
        if not isinstance(job_class, str) or not job_class:
            raise InvalidWorkflow(f"A job needs the name of a class or actor, not {job_class!r}.", job_class)
        check_names(options)
        self._set(job_class, args, options)

    def _set(self, job_class: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        codec.check(args, "args")
        check_options(options, of_job=True)
        self.__attrs_init__(job_class, args, options)

    def __getattr__(self, name: str) -> NoReturn:
        raise no_attribute("A Job", name, "Start it: Workflow(Job(...)).run().")

    def __repr__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        parts = [repr(self.job_class), *map(repr, self.args), *options]
        return f"Job({', '.join(parts)})"


@attrs.frozen(init=False, repr=False)
class Chain:
    """Nodes that run one after another.  An empty chain completes at once.

    Raises:
      InvalidWorkflow: if a list of nodes is given: ``Chain(*nodes)``.
    """

    children: tuple[Any, ...]

    def __init__(self, *children: Any) -> None:
        check_children("Chain", children)
        self.__attrs_init__(children)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.children))})"


@attrs.frozen(init=False, repr=False)
class Group:
    """Nodes that run in parallel.  An empty group completes at once.

    Parameters:
      need: How many of the nodes must be done before what follows goes on; all by
        default.  The others go on, and count no more.

    Raises:
      InvalidWorkflow: if a list of nodes is given: ``Group(*nodes)``; or if there
        are not as many nodes as are needed.
    """

    children: tuple[Any, ...]
    need: int | None = None

    def __init__(self, *children: Any, need: int | None = None) -> None:
        check_children("Group", children)
        self.__attrs_init__(children, checked_need(need, len(children)))

    def __repr__(self) -> str:
        need = [] if self.need is None else [f"need={self.need}"]
        return f"Group({', '.join([*map(repr, self.children), *need])})"


@attrs.frozen(init=False, repr=False)
class WithDelay:
    """A node that starts later.

    Delays add up when nested; a delay on a chain delays its first node, on a
    group each child.

    Parameters:
      task: The node.
      delay: Milliseconds (int or float), or a timedelta.  A number below 100 gives
        a warning, since seconds may have been meant.
    """

    task: Any
    delay: int | float

    def __init__(self, task: Any, delay: int | float | timedelta) -> None:
        if isinstance(delay, timedelta):
            delay = round(delay.total_seconds() * 1000)
        elif type(delay) in (int, float):
            warn_of_short(delay)
        self._set(task, delay)

    def _set(self, task: Any, delay: int | float) -> None:
        if type(delay) not in (int, float) or not 0 <= delay <= MAX_DELAY:
            raise InvalidWorkflow(f"delay must be milliseconds (0 or more) or a timedelta, not {delay!r:.50}.", delay)
        self.__attrs_init__(task, delay)

    def __repr__(self) -> str:
        return f"WithDelay({self.task!r}, delay={self.delay})"


@attrs.frozen(init=False, repr=False)
class Namespace:
    """A node whose steps store their outputs under a prefix of the run's memory.

    A field ``size`` of a step inside ``Namespace("left", ...)`` is the field
    ``left.size`` of the memory.  A step that reads ``size`` gets ``left.size``
    if it exists, else the shared ``size``.  Nested names join: ``outer.inner``.

    Parameters:
      name: The prefix, as in the option ``memory_namespace`` of a single step.
      task: The node.

    Raises:
      InvalidOptions: if the name is invalid.
    """

    name: str
    task: Any

    def __init__(self, name: str, task: Any) -> None:
        check_namespace(name)
        self.__attrs_init__(name, task)

    def __repr__(self) -> str:
        return f"Namespace({self.name!r}, {self.task!r})"


Node = Union[Job, Chain, Group, WithDelay, Namespace, MayFail, Catch]

#: Nodes that have others inside.
_INNER = (Chain, Group, WithDelay, Namespace, MayFail, Catch)


def dump(node: Any, leaf: Callable[[Any], Wire | None], depth: int = codec.MAX_DEPTH) -> Wire:
    """Convert a tree to its wire form.

    Parameters:
      node: A node, or any value that ``leaf`` converts.
      leaf: Converts a value that is not a chain, group, delay or namespace, or
        a :class:`Needing`; returns None if it cannot.

    Raises:
      InvalidWorkflow: if a value is not a node, or the tree is deeper than 100 levels.
    """
    if depth <= 0:
        raise InvalidWorkflow(f"The workflow is nested deeper than {codec.MAX_DEPTH} levels, which Ruby refuses.", node)
    if isinstance(node, (Chain, Group)):
        return _dump_branch(node, leaf, depth)
    if isinstance(node, WithDelay):
        return {"__type__": "with_delay", "delay": node.delay, "task": dump(node.task, leaf, depth - 1)}
    if isinstance(node, Namespace):
        return _in_namespace(node.name, dump(node.task, leaf, depth))
    if isinstance(node, (MayFail, Catch)):
        return _dump_policy(node, leaf, depth)
    wire = leaf(node)
    if wire is None:
        raise InvalidWorkflow(
            f"{node!r:.200} is not a step of a workflow. Use Job(...), Chain, Group, WithDelay, or actor.message(...)."
            f"{what_it_is(node)}",
            node,
        )
    return wire


def _dump_branch(node: Chain | Group, leaf: Callable[[Any], Wire | None], depth: int) -> Wire:
    if isinstance(node, Group) and node.need is not None:
        return _dump_needing(node, leaf, depth)
    kind = "chain" if isinstance(node, Chain) else "group"
    # Most children are leaves: a call less for each.
    children = [
        (depth > 2 and not isinstance(child, _INNER) and leaf(child)) or dump(child, leaf, depth - 2)
        for child in node.children
    ]
    return {"__type__": kind, "children": children}


def _dump_needing(node: Group, leaf: Callable[[Any], Wire | None], depth: int) -> Wire:
    assert node.need is not None
    wire = leaf(Needing(node.need, [dump(child, leaf, depth - 3) for child in node.children]))
    if wire is None:
        raise InvalidWorkflow("A group with need= cannot be used here.", node)
    return wire


def _dump_policy(node: MayFail | Catch, leaf: Callable[[Any], Wire | None], depth: int) -> Wire:
    step = None if isinstance(node.step, _INNER) else leaf(node.step)
    if step is None or isinstance(node, MayFail):
        return with_policy(node, step, None)
    return with_policy(node, step, dump(node.fallback, leaf, depth - 1))


def _in_namespace(name: str, wire: Wire) -> Wire:
    """Prefix the namespace of each job of a tree."""
    for job in jobs(wire):
        inner = job.get("memory_namespace")
        job["memory_namespace"] = f"{name}.{inner}" if inner else name
    return wire


def walk(node: Any) -> Iterator[Any]:
    """Yield the leaves of a tree in written order: jobs, messages, and values that are not nodes."""
    if not isinstance(node, _INNER):
        yield node
        return
    for child in node.children if isinstance(node, (Chain, Group, MayFail, Catch)) else (node.task,):
        if isinstance(child, _INNER):
            yield from walk(child)
        else:
            yield child


def jobs(wire: Wire) -> Iterator[Wire]:
    """Yield the jobs of a tree in wire form, in order; those of a fallback come after its step.

    The members of a group that needs some of them come after its carrier.
    """
    if wire["__type__"] == "job":
        yield wire
    for child in parts(wire):
        # Most children are jobs: a call less for each.
        if child["__type__"] == "job" and DEATH_KEY not in child and GROUP_KEY not in child:
            yield child
        else:
            yield from jobs(child)


def dump_job(job: Job) -> Wire:
    """Convert one job to its wire form, in which its options are keys next to ``class`` and ``args``."""
    return {"__type__": "job", "class": job.job_class, "args": list(job.args), **job.options}


def is_ruby_constant(name: str) -> bool:
    """Return True if Ruby can have a class of this name."""
    return _RUBY_CONSTANT.fullmatch(name) is not None


def carry(wire: Wire, noop_class: str = NOOP_CLASS) -> Wire:
    """Make a *carrier* of a job, so that Ruby can advance onto it without a class of its name.

    Ruby looks a step's class up with ``Object.const_get``, so an actor whose
    name is not a Ruby constant travels as the gem's own NoopWorker; ``wrapped``
    holds the actor's name, and ``display_class`` shows it in Sidekiq's UI.
    """
    name = wire["class"]
    return {**wire, "class": noop_class, "wrapped": name, "display_class": name}


def validate(wire: Any) -> None:
    """Check that a decoded value is a tree in wire form.

    Raises:
      InvalidNode: if it is not; the message names the path.
    """
    error = tree_error(wire)
    if error is not None:
        raise InvalidNode(f"Invalid workflow tree: {cut(error)}", wire)
    check_depth(wire)


def check_depth(wire: Wire) -> None:
    """Check that a tree is not nested deeper than Ruby can read and Python can walk.

    Raises:
      InvalidNode: if it is nested deeper.
    """
    levels = [(wire, codec.MAX_DEPTH)]
    while levels:
        node, depth = levels.pop()
        if depth <= 0:
            raise InvalidNode(f"The workflow tree is nested deeper than {codec.MAX_DEPTH} levels.", wire)
        below = depth - 2 if "children" in node else depth - 1
        levels += [(child, below) for child in parts(node) if "task" in node or not is_plain(child)]
