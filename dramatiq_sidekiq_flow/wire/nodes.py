"""The workflow tree: jobs, chains, groups and delays.

A tree exists in two forms.  What people build are the frozen values here;
what travels is the *wire form*, plain JSON, ``{"__type__": "chain",
"children": [...]}``, read and written by :func:`dump` and :func:`load` and
checked by :func:`validate`.  The plan works on the wire form, since that is
what every step receives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NoReturn, Union

import attrs
import msgspec

from ..errors import InvalidNode, InvalidOptions, InvalidWorkflow, cut
from . import codec
from .dialect import KEYS, WORKFLOW
from .near_misses import check_children, check_names, no_attribute, warn_of_short, what_it_is
from .tree_schema import MAX_DELAY, Shape

#: A node in its wire form.
Wire = dict[str, Any]

#: The class that the gem gives to a delayed empty chain or group; it also
#: carries steps whose actor has no Ruby name (see :func:`carry`).
NOOP_CLASS = WORKFLOW.noop_class

#: The name of a Ruby class, as Ruby looks it up; other names are Python's alone.
_RUBY_CONSTANT = re.compile(r"[A-Z]\w*(::[A-Z]\w*)*", re.ASCII)


#: Written by us or by the pusher; never an option of a class.
RESERVED = frozenset(("__type__", "class", "args", "jid", "at", "enqueued_at")) | KEYS


def check_options(options: Mapping[str, Any], *, of_job: bool = False) -> None:
    """See that job options mean in Sidekiq what they say (``job_util.rb``, ``validate``).

    Parameters:
      of_job: They are those of one job, not of a class: it may be given its ``jid``.

    Raises:
      InvalidOptions: naming the option.
    """
    for name, value in options.items():
        if name == "jid" and of_job:
            if type(value) is not str or not value:
                raise InvalidOptions(f"jid must be text, such as a message's id, not {value!r}.", value)
        elif name in RESERVED:
            raise InvalidOptions(f"{name!r} is not an option of a job; it is written by the library.", value)
        if name in ("queue", "retry_queue") and (not isinstance(value, str) or not value):
            raise InvalidOptions(f"{name} must be the name of a queue, not {value!r}.", value)
        if name == "retry" and not isinstance(value, (bool, int)):
            raise InvalidOptions(f"retry must be true, false or a number of tries, not {value!r}.", value)
        if name == "memory_namespace":
            check_namespace(value)
        if name == "tags" and not isinstance(value, (list, tuple)):
            raise InvalidOptions(f"tags must be a list of strings, not {value!r}.", value)
        if name == "retry_for" and (type(value) is bool or not isinstance(value, (int, float)) or value > 1e9):
            raise InvalidOptions(f"retry_for must be a number of seconds, not {value!r}.", value)
        codec.check(value, name)


def check_namespace(name: Any) -> None:
    """See that this names a part of a run's memory.

    Raises:
      InvalidOptions: for anything but names with dots between them.
    """
    if not isinstance(name, str) or not all(name.split(".")):
        raise InvalidOptions(f"A namespace of the memory is named like 'left' or 'left.inner', not {name!r}.", name)


@attrs.frozen(init=False, repr=False)
class Job:
    """One job: a Ruby class, or an actor, by name.

    Parameters:
      job_class: Ruby constant (``"Docs::Extract"``) or actor name.
      *args: JSON values, the arguments of ``perform``.
      **options: Sidekiq's job options: ``queue``, ``retry``, ``tags``,
        ``backtrace``, ``dead``, ``retry_for`` (seconds), ``retry_queue``,
        ``jid`` (the job's id, made when it is pushed unless given)...
        What is not said is taken from the class where it is known, else from
        Sidekiq's defaults (queue ``default``, retry ``True``).

    Raises:
      InvalidArguments, InvalidOptions: see there.
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
        said = [repr(self.job_class), *map(repr, self.args), *(f"{k}={v!r}" for k, v in self.options.items())]
        return f"Job({', '.join(said)})"


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
    """Nodes that run side by side; complete when all are.  Empty: at once.

    Raises:
      InvalidWorkflow: if a list of nodes is given: ``Group(*nodes)``.
    """

    children: tuple[Any, ...]

    def __init__(self, *children: Any) -> None:
        check_children("Group", children)
        self.__attrs_init__(children)

    def __repr__(self) -> str:
        return f"Group({', '.join(map(repr, self.children))})"


@attrs.frozen(init=False, repr=False)
class WithDelay:
    """A node that starts later.

    Delays add up when nested; a delay on a chain delays its first node, on a
    group each child.

    Parameters:
      task: The node.
      delay: Milliseconds (250.5, too), or a timedelta.  Below 100 ms a warning says so.
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
    """A node whose steps keep what they return apart from others', in the run's memory.

    A field ``size`` of a step inside ``Namespace("left", ...)`` is the field
    ``left.size`` of the memory.  Its steps read ``size`` and find their own
    first, then everybody's.  Nested, names join: ``outer.inner``.

    Parameters:
      name: As the option ``memory_namespace`` of a single step.
      task: The node.

    Raises:
      InvalidOptions: for a name that is none.
    """

    name: str
    task: Any

    def __init__(self, name: str, task: Any) -> None:
        check_namespace(name)
        self.__attrs_init__(name, task)

    def __repr__(self) -> str:
        return f"Namespace({self.name!r}, {self.task!r})"


Node = Union[Job, Chain, Group, WithDelay, Namespace]


def dump(node: Any, leaf: Callable[[Any], Wire | None], depth: int = codec.MAX_DEPTH) -> Wire:
    """The wire form of a tree.

    Parameters:
      node: A node, or anything that ``leaf`` knows.
      leaf: Gives the wire form of what is neither chain, group nor delay,
        or None for what it does not know.

    Raises:
      InvalidWorkflow: for anything else, and for trees deeper than 100.
    """
    if depth <= 0:
        raise InvalidWorkflow(f"The workflow is nested deeper than {codec.MAX_DEPTH} levels, which Ruby refuses.", node)
    if isinstance(node, (Chain, Group)):
        kind = "chain" if isinstance(node, Chain) else "group"
        return {"__type__": kind, "children": [dump(child, leaf, depth - 2) for child in node.children]}
    if isinstance(node, WithDelay):
        return {"__type__": "with_delay", "delay": node.delay, "task": dump(node.task, leaf, depth - 1)}
    if isinstance(node, Namespace):
        inside = dump(node.task, leaf, depth)
        for job in jobs(inside):
            inner = job.get("memory_namespace")
            job["memory_namespace"] = f"{node.name}.{inner}" if inner else node.name
        return inside
    wire = leaf(node)
    if wire is None:
        raise InvalidWorkflow(
            f"{node!r:.200} is not a step of a workflow. Use Job(...), Chain, Group, WithDelay, or actor.message(...)."
            f"{what_it_is(node)}",
            node,
        )
    return wire


def walk(node: Any) -> Iterator[Any]:
    """The steps of a tree, in the order in which they are written: jobs, messages, and whatever else is not a node."""
    if isinstance(node, (Chain, Group)):
        for child in node.children:
            yield from walk(child)
    elif isinstance(node, (WithDelay, Namespace)):
        yield from walk(node.task)
    else:
        yield node


def jobs(wire: Wire) -> Iterator[Wire]:
    """The jobs of a tree in wire form, in order."""
    if wire["__type__"] == "job":
        yield wire
    for child in wire.get("children", ()):
        yield from jobs(child)
    if "task" in wire:
        yield from jobs(wire["task"])


def dump_job(job: Job) -> Wire:
    """The wire form of one job: its options stand beside class and args."""
    return {"__type__": "job", "class": job.job_class, "args": list(job.args), **job.options}


def load(wire: Any) -> Node:
    """The values of a tree in wire form.

    Raises:
      InvalidNode: for anything that :func:`validate` refuses.
    """
    validate(wire)
    return _load(wire)


def _load(wire: Wire) -> Node:
    kind = wire["__type__"]
    if kind == "job":
        options = {k: v for k, v in wire.items() if k not in RESERVED or k == "jid"}
        job = Job.__new__(Job)
        # Written by another program, which may have options of its own.
        job._set(wire["class"], tuple(wire["args"]), options)
        return job
    if kind == "with_delay":
        delayed = WithDelay.__new__(WithDelay)
        delayed._set(_load(wire["task"]), wire["delay"])
        return delayed
    children = map(_load, wire["children"])
    return Chain(*children) if kind == "chain" else Group(*children)


def is_ruby_constant(name: str) -> bool:
    """Whether Ruby can have a class of this name."""
    return _RUBY_CONSTANT.fullmatch(name) is not None


def carry(wire: Wire, noop_class: str = NOOP_CLASS) -> Wire:
    """The same job as a *carrier*: Ruby can advance onto it with nothing installed.

    Ruby looks a step's class up with ``Object.const_get``, so an actor whose
    name is no Ruby constant travels as the gem's own NoopWorker; ``wrapped``
    holds the actor's name, and ``display_class`` shows it in Sidekiq's UI.
    """
    name = wire["class"]
    return {**wire, "class": noop_class, "wrapped": name, "display_class": name}


def validate(wire: Any) -> None:
    """See that a decoded value is a tree in wire form.

    Raises:
      InvalidNode: naming the path of what is wrong.
    """
    try:
        msgspec.convert(wire, Shape)
    except (msgspec.ValidationError, RecursionError) as e:
        raise InvalidNode(f"Invalid workflow tree: {cut(e)}", wire) from None
    check_depth(wire)


def check_depth(wire: Wire) -> None:
    """See that a tree is not nested deeper than Ruby reads, nor than Python can walk it.

    Raises:
      InvalidNode: if it is.
    """
    levels = [(wire, codec.MAX_DEPTH)]
    while levels:
        node, depth = levels.pop()
        if depth <= 0:
            raise InvalidNode(f"The workflow tree is nested deeper than {codec.MAX_DEPTH} levels.", wire)
        if "task" in node:
            levels.append((node["task"], depth - 1))
        elif "children" in node:
            nested = [child for child in node["children"] if child["__type__"] != "job"]
            levels.extend((child, depth - 2) for child in nested)


def total_delay(wire: Wire) -> float:
    """The longest time that the delays of a tree can add up to, in milliseconds."""
    kind = wire["__type__"]
    if kind == "with_delay":
        return max(0.0, float(wire["delay"])) + total_delay(wire["task"])
    if kind == "reference":
        return float(wire.get("delay", 0))
    delays = [total_delay(child) for child in wire.get("children", ())]
    return sum(delays) if kind == "chain" else max(delays, default=0.0)


def latest_start(wire: Wire) -> float:
    """The latest ``at`` of the jobs of a tree, in epoch seconds; 0 where none has one."""
    if wire["__type__"] == "reference":
        return 0.0  # its ``at`` is a place in a chain; chains whose jobs have one are not stored
    return max((float(job.get("at", 0)) for job in jobs(wire)), default=0.0)


def completes_at_once(node: Wire) -> bool:
    """Whether a tree has nothing to run and nothing to wait for."""
    kind = node["__type__"]
    if kind in ("job", "reference"):
        return False
    if kind == "with_delay":
        return not node["delay"] and completes_at_once(node["task"])
    return all(map(completes_at_once, node["children"]))
