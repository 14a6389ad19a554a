"""What is swept: for each scenario its runs, and how they are begun."""

from __future__ import annotations

from .scenario import Options, Run, Scenario, chain, delay, group, output
from .steered import STEERED

WIDE = 2_500

_J = "job"

#: An argument that makes a step large.
_PAD = "x" * 300_000
_TAIL = chain(_J, group(_J, _J, _J), _J)
_NESTED = chain(group(chain(_J, _J), group(_J, group(_J, _J))), _J)

ALL = (
    Scenario(
        "job",
        "single jobs: three that were sent, and a workflow of one",
        (Run(group(_J, _J, _J), plain=True), Run(_J)),
        handshakes=True,
    ),
    Scenario("chain", "a chain of five", (Run(chain(_J, _J, _J, _J, _J)),)),
    Scenario("messages", "a chain and a group of messages with ids of their own", (Run(_TAIL, how="message"),)),
    Scenario("group", "a group between two steps", (Run(_TAIL),)),
    Scenario(
        "many",
        "a group that takes several fetches, each with more behind it",
        (Run(chain(group(*[_J] * 24), _J)),),
        every=2,
    ),
    Scenario("nested", "a group of chains and groups, and a step after it", (Run(_NESTED),)),
    Scenario(
        "delayed",
        "delays on a step, a chain, a member and a group",
        (Run(chain(_J, delay(40, _J), delay(30, chain(_J, _J)), group(delay(60, _J), _J), _J)),),
        every=2,
    ),
    Scenario(
        "empty",
        "empty chains and groups between steps and in a group",
        (Run(chain(_J, chain(), group(), _J, group(group(), chain(), _J), _J)),),
    ),
    Scenario(
        "delayed-empty",
        "empty chains and groups with a delay",
        (Run(chain(_J, delay(30, group()), _J, group(delay(20, chain()), _J), delay(20, chain()), _J)),),
    ),
    Scenario(
        "retry",
        "steps of a chain and a group that fail at first",
        (Run(chain(_J, _J, group(_J, _J), _J), {1: {"fail": "first"}, 2: {"fail": "first"}}),),
        every=2,
    ),
    Scenario(
        "dead",
        "steps that fail until they are dead, and are retried by hand",
        (Run(chain(_J, _J, group(_J, _J), _J), {1: {"fail": "mended"}, 3: {"fail": "mended"}}),),
        every=2,
        mends=True,
    ),
    Scenario(
        "deaths",
        "steps of a chain and a group that die, and what takes their place",
        (
            Run(
                chain(_J, _J, group(_J, _J, _J), _J),
                {1: {"dies": "caught"}, 2: {"dies": "done"}, 4: {"dies": "caught"}, 5: {"dies": "done"}},
            ),
        ),
        every=2,
    ),
    Scenario(
        "reference",
        "a chain and the chains of a group, kept by reference",
        (Run(chain(_J, _J, group(chain(_J, _J, _J), _J), _J, _J)),),
        references=True,
    ),
    Scenario(
        "large",
        "large trees, by reference though no storage was chosen",
        (Run(chain(_J, group(chain(_J, _J), _J), _J, _J), {2: {"pad": _PAD}, 5: {"pad": _PAD}}),),
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
        (Run(chain(_J, group(*[_J] * WIDE), _J)),),
        dense=26,
        stride=899,
        threads=4,
        patience=20.0,
    ),
    Scenario(
        "fanout-start",
        f"{WIDE} members that a producer starts",
        (Run(chain(group(*[_J] * WIDE), _J), by="producer"),),
        hurt="producer",
        threads=4,
        patience=20.0,
    ),
    Scenario(
        "bulk",
        f"{WIDE} jobs that a producer sends in one call, again after an error",
        (Run(group(*[_J] * WIDE), by="producer", how="many", plain=True),),
        hurt="producer",
        threads=4,
        patience=20.0,
    ),
    Scenario(
        "recovery",
        "a dead worker's jobs, begun and fetched ahead, are recovered",
        (Run(chain(group(*[_J] * 5), _J), {n: {"hangs": True} for n in range(5)}),),
        doomed=True,
        every=2,
        patience=12.0,
    ),
    Scenario(
        "shutdown",
        "TERM while steps run, one of them for longer than the worker waits",
        (Run(chain(group(*[_J] * 6), _J), {n: {"ms": 250 if n == 1 else 15} for n in range(6)}),),
        term=2,
        patience=30.0,
    ),
    Scenario(
        "typed",
        "typed steps, whose inputs and outputs go through the memory",
        (Run(chain(_J, group(_J, _J), _J), {n: {"out": 6} for n in range(4)}, how="typed"),),
    ),
    Scenario(
        "output",
        "outputs of 300 kB",
        (Run(chain(_J, group(_J, _J), _J), {0: {"out": 300_000}, 2: {"out": 300_000}}),),
    ),
    Scenario(
        "start",
        "a producer that starts three runs and sends two jobs, each again after an error",
        (
            Run(_TAIL, by="producer"),
            Run(_NESTED, by="producer", how="message"),
            Run(chain(delay(20, _J), _J), {1: {"seed": True}}, by="producer", how="template", seed={"color": "red"}),
            Run(group(_J, _J), by="producer", plain=True),
        ),
        hurt="producer",
        references=True,
        handshakes=True,
    ),
    Scenario(
        "step-starts",
        "a step that starts another run and sends two jobs, again after an error",
        (
            Run(chain(_J, _J), {0: {"starts": [1, 2]}}),
            Run(_TAIL, by="step"),
            Run(group(_J, _J), by="step", plain=True),
        ),
    ),
    Scenario(
        "grows",
        "steps that trees replace: in a chain, in a group, in such a tree, and alone",
        (
            Run(
                # 0; 1, in whose place come 2 to 5; 6, and 7 with 8 in its place; 9.
                chain(_J, chain(_J, group(_J, chain(_J, group(_J, _J)))), group(_J, chain(_J, _J)), _J),
                {
                    1: {"grows": [group(_J, _J), 2], "out": 10},
                    3: {"grows": [group(_J, _J), 4]},
                    7: {"grows": [_J, 8]},
                },
                begun=(chain(_J, _J, group(_J, _J), _J), (0, 1, 6, 7, 9)),
            ),
            Run(chain(_J, group(_J, _J)), {0: {"grows": [group(_J, _J), 1]}}, begun=(_J, (0,))),
        ),
        every=2,
    ),
    Scenario(
        "everything",
        "delays, empty nodes, retries, references, memory, a run in a run, nested groups",
        (
            Run(
                chain(
                    _J,
                    group(chain(_J, delay(20, _J)), group(_J, delay(30, group())), chain()),
                    delay(20, chain()),
                    _J,
                    group(_J, group(_J, _J)),
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
            Run(group(_J), plain=True),
        ),
        references=True,
        mends=True,
        every=2,
        patience=12.0,
    ),
    *STEERED,
)

SCENARIOS = {scenario.name: scenario for scenario in ALL}

__all__ = ["ALL", "SCENARIOS", "WIDE", "Options", "Run", "Scenario", "output"]
