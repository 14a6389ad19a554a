"""What is swept: for each scenario its runs, and how they are begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..trees import Shape, before, build

#: A step as its actor gets it: what it is to do beyond telling that it runs.
Options = Mapping[str, Any]

WIDE = 2_500


@attrs.frozen
class Run:
    """One workflow, or (``plain``) single jobs without one.

    Attributes:
      shape: The tree; see ``tests.trees``.
      options: Step number -> what it does; see ``worker.work``.
      by: How it is begun: ``starter`` (before the sweep, unhurt), ``step`` (by a
        step of another run), ``producer`` (by the process that is hurt).
      how: ``job`` (a class name), ``message`` (an actor's message), ``typed``
        (attrs classes), ``template``; of single jobs, ``many``: all in one call.
      seed: What the run's memory is to hold from the beginning.
      begun: The tree that is started, and the numbers of its steps, if steps add
        the others while the run runs (their option ``grows``); by default ``shape``.
    """

    shape: Shape
    options: Mapping[int, Options] = attrs.field(factory=dict)
    by: str = "starter"
    how: str = "job"
    plain: bool = False
    seed: Mapping[str, Any] = attrs.field(factory=dict)
    begun: tuple[Shape, tuple[int, ...]] | None = None
    count: int = attrs.field(init=False)
    pairs: frozenset[tuple[int, int]] = attrs.field(init=False)

    @count.default
    def _count(self) -> int:
        return build(self.shape, _Counted)[1]

    @pairs.default
    def _pairs(self) -> frozenset[tuple[int, int]]:
        return frozenset() if self.plain else frozenset(before(self.shape))

    def tree(self, step: Any) -> Any:
        """Build the tree that is started; ``step`` makes the step of a number."""
        shape, numbers = self.begun or (self.shape, range(self.count))
        return build(shape, lambda index: step(numbers[index]))[0]

    def memory(self) -> dict[str, Any]:
        """What the run's memory holds at the end."""
        found = dict(self.seed)
        for number, options in self.options.items():
            if "out" in options:
                found[f"step{number}"] = output(number, options)
        return found


class _Counted:
    """Stands for a job where only their number matters."""

    def __init__(self, number: int) -> None:
        self.number = number


def output(number: int, options: Options) -> str:
    """What a step returns; as long as its option says."""
    length: int = options["out"]
    return (f"{number:06d}" * (length // 6 + 1))[:length]


@attrs.frozen
class Scenario:
    """One of the tests of the sweep.

    Attributes:
      what: For ``--list``.
      hurt: Which process is hurt: ``worker``, or ``producer``.
      handshakes: What opens a connection counts as well; the same everywhere,
        so two scenarios are enough.
      every: Of the first ``dense`` commands, every so many-th is a point of a
        mode; the modes take turns.
      stride: The same behind them.
      threads: Of the workers.
      references: Chains are kept by reference.
      doomed: A worker dies with jobs in flight before the sweep begins.
      term: The worker is stopped with TERM after so many starts.
      mends: Dead jobs are retried by hand.
      patience: Seconds that the hurt process has to finish by itself.
    """

    name: str
    what: str
    runs: tuple[Run, ...]
    hurt: str = "worker"
    handshakes: bool = False
    every: int = 1
    dense: int = 400
    stride: int = 1
    threads: int = 2
    references: bool = False
    doomed: bool = False
    term: int = 0
    mends: bool = False
    patience: float = 8.0

    def points(self, commands: int, offset: int = 0) -> list[int]:
        """The numbers of the commands that are hurt in one mode, of so many."""
        strides = ((k, self.every if k <= self.dense else self.stride) for k in range(1, commands + 1))
        return [k for k, stride in strides if (k + offset) % stride == 0]


def _chain(*children: Shape) -> Shape:
    return ("chain", list(children))


def _group(*children: Shape) -> Shape:
    return ("group", list(children))


def _delay(milliseconds: int, child: Shape) -> Shape:
    return ("delay", milliseconds, child)


_J = "job"

#: An argument that makes a step large.
_PAD = "x" * 300_000
_TAIL = _chain(_J, _group(_J, _J, _J), _J)
_NESTED = _chain(_group(_chain(_J, _J), _group(_J, _group(_J, _J))), _J)

ALL = (
    Scenario(
        "job",
        "single jobs: three that were sent, and a workflow of one",
        (Run(_group(_J, _J, _J), plain=True), Run(_J)),
        handshakes=True,
    ),
    Scenario("chain", "a chain of five", (Run(_chain(_J, _J, _J, _J, _J)),)),
    Scenario("messages", "a chain and a group of messages with ids of their own", (Run(_TAIL, how="message"),)),
    Scenario("group", "a group between two steps", (Run(_TAIL),)),
    Scenario(
        "many",
        "a group that takes several fetches, each with more behind it",
        (Run(_chain(_group(*[_J] * 24), _J)),),
        every=2,
    ),
    Scenario("nested", "a group of chains and groups, and a step after it", (Run(_NESTED),)),
    Scenario(
        "delayed",
        "delays on a step, a chain, a member and a group",
        (Run(_chain(_J, _delay(40, _J), _delay(30, _chain(_J, _J)), _group(_delay(60, _J), _J), _J)),),
        every=2,
    ),
    Scenario(
        "empty",
        "empty chains and groups between steps and in a group",
        (Run(_chain(_J, _chain(), _group(), _J, _group(_group(), _chain(), _J), _J)),),
    ),
    Scenario(
        "delayed-empty",
        "empty chains and groups with a delay",
        (Run(_chain(_J, _delay(30, _group()), _J, _group(_delay(20, _chain()), _J), _delay(20, _chain()), _J)),),
    ),
    Scenario(
        "retry",
        "steps of a chain and a group that fail at first",
        (Run(_chain(_J, _J, _group(_J, _J), _J), {1: {"fail": "first"}, 2: {"fail": "first"}}),),
        every=2,
    ),
    Scenario(
        "dead",
        "steps that fail until they are dead, and are retried by hand",
        (Run(_chain(_J, _J, _group(_J, _J), _J), {1: {"fail": "mended"}, 3: {"fail": "mended"}}),),
        every=2,
        mends=True,
    ),
    Scenario(
        "deaths",
        "steps of a chain and a group that die, and what takes their place",
        (
            Run(
                _chain(_J, _J, _group(_J, _J, _J), _J),
                {1: {"dies": "caught"}, 2: {"dies": "done"}, 4: {"dies": "caught"}, 5: {"dies": "done"}},
            ),
        ),
        every=2,
    ),
    Scenario(
        "reference",
        "a chain and the chains of a group, kept by reference",
        (Run(_chain(_J, _J, _group(_chain(_J, _J, _J), _J), _J, _J)),),
        references=True,
    ),
    Scenario(
        "large",
        "large trees, by reference though no storage was chosen",
        (Run(_chain(_J, _group(_chain(_J, _J), _J), _J, _J), {2: {"pad": _PAD}, 5: {"pad": _PAD}}),),
        every=2,
    ),
    Scenario(
        "template",
        "a template whose params are in the memory, read by each step",
        (Run(_TAIL, {n: {"seed": True} for n in range(5)}, how="template", seed={"color": "blue", "size": 7}),),
    ),
    Scenario(
        "fanout",
        f"{WIDE} members after a step",
        (Run(_chain(_J, _group(*[_J] * WIDE), _J)),),
        dense=26,
        stride=899,
        threads=4,
        patience=20.0,
    ),
    Scenario(
        "fanout-start",
        f"{WIDE} members that a producer starts",
        (Run(_chain(_group(*[_J] * WIDE), _J), by="producer"),),
        hurt="producer",
        threads=4,
        patience=20.0,
    ),
    Scenario(
        "bulk",
        f"{WIDE} jobs that a producer sends in one call, again after an error",
        (Run(_group(*[_J] * WIDE), by="producer", how="many", plain=True),),
        hurt="producer",
        threads=4,
        patience=20.0,
    ),
    Scenario(
        "recovery",
        "a dead worker's jobs, begun and fetched ahead, are recovered",
        (Run(_chain(_group(*[_J] * 5), _J), {n: {"hangs": True} for n in range(5)}),),
        doomed=True,
        every=2,
        patience=12.0,
    ),
    Scenario(
        "shutdown",
        "TERM while steps run, one of them for longer than the worker waits",
        (Run(_chain(_group(*[_J] * 6), _J), {n: {"ms": 250 if n == 1 else 15} for n in range(6)}),),
        term=2,
        patience=30.0,
    ),
    Scenario(
        "typed",
        "typed steps, whose inputs and outputs go through the memory",
        (Run(_chain(_J, _group(_J, _J), _J), {n: {"out": 6} for n in range(4)}, how="typed"),),
    ),
    Scenario(
        "output",
        "outputs of 300 kB",
        (Run(_chain(_J, _group(_J, _J), _J), {0: {"out": 300_000}, 2: {"out": 300_000}}),),
    ),
    Scenario(
        "start",
        "a producer that starts three runs and sends two jobs, each again after an error",
        (
            Run(_TAIL, by="producer"),
            Run(_NESTED, by="producer", how="message"),
            Run(_chain(_delay(20, _J), _J), {1: {"seed": True}}, by="producer", how="template", seed={"color": "red"}),
            Run(_group(_J, _J), by="producer", plain=True),
        ),
        hurt="producer",
        references=True,
        handshakes=True,
    ),
    Scenario(
        "step-starts",
        "a step that starts another run and sends two jobs, again after an error",
        (
            Run(_chain(_J, _J), {0: {"starts": [1, 2]}}),
            Run(_TAIL, by="step"),
            Run(_group(_J, _J), by="step", plain=True),
        ),
    ),
    Scenario(
        "grows",
        "steps that trees replace: in a chain, in a group, in such a tree, and alone",
        (
            Run(
                # 0; 1, in whose place come 2 to 5; 6, and 7 with 8 in its place; 9.
                _chain(_J, _chain(_J, _group(_J, _chain(_J, _group(_J, _J)))), _group(_J, _chain(_J, _J)), _J),
                {
                    1: {"grows": [_group(_J, _J), 2], "out": 10},
                    3: {"grows": [_group(_J, _J), 4]},
                    7: {"grows": [_J, 8]},
                },
                begun=(_chain(_J, _J, _group(_J, _J), _J), (0, 1, 6, 7, 9)),
            ),
            Run(_chain(_J, _group(_J, _J)), {0: {"grows": [_group(_J, _J), 1]}}, begun=(_J, (0,))),
        ),
        every=2,
    ),
    Scenario(
        "everything",
        "delays, empty nodes, retries, references, memory, a run in a run, nested groups",
        (
            Run(
                _chain(
                    _J,
                    _group(_chain(_J, _delay(20, _J)), _group(_J, _delay(30, _group())), _chain()),
                    _delay(20, _chain()),
                    _J,
                    _group(_J, _group(_J, _J)),
                    _J,
                ),
                {
                    0: {"starts": [1], "out": 2_000},
                    2: {"fail": "first", "out": 10},
                    3: {"seed": True},
                    4: {"fail": "mended"},
                    8: {"seed": True, "out": 10},
                },
                how="template",
                seed={"color": "green"},
            ),
            Run(_TAIL, {1: {"out": 50}}, by="step", how="message"),
            Run(_group(_J), plain=True),
        ),
        references=True,
        mends=True,
        every=2,
        patience=12.0,
    ),
)

SCENARIOS = {scenario.name: scenario for scenario in ALL}
