"""Scenarios of runs that are steered, grow, wait for signals, have callbacks, or go on past dead steps."""

from __future__ import annotations

from .scenario import End, Run, Scenario, chain, delay, group

_J = "job"
_TAIL = chain(_J, group(_J, _J, _J), _J)
_ALL = ("success", "failure", "complete")

#: Of a run that is done.
_DONE = {"success": "", "complete": "done"}

STEERED = (
    Scenario(
        "policies",
        "steps that die in trees that replace steps, with callbacks: the run is done",
        (
            Run(
                # 0; 1 is caught; 2 may fail; in the place of 3 come 4, which is caught, and 5, which may fail;
                # 6 adds 7 and 8, which may fail; 9.
                chain(_J, _J, _J, chain(_J, group(_J, _J)), chain(_J, group(_J, _J)), _J),
                {
                    1: {"dies": "caught"},
                    2: {"dies": "done"},
                    3: {"grows": [group(_J, _J), 4], "out": 10},
                    4: {"dies": "caught"},
                    5: {"dies": "done"},
                    6: {"adds": [group(_J, _J), 7]},
                    8: {"dies": "done"},
                },
                begun=(chain(_J, _J, _J, _J, _J, _J), (0, 1, 2, 3, 6, 9)),
                calls=_ALL,
                end=End(calls=_DONE),
            ),
        ),
        every=2,
    ),
    Scenario(
        "needs",
        "groups that need one of their members, of which the others die",
        (
            Run(
                chain(_J, _J, group(_J, chain(_J, _J)), _J),
                {1: {"needs": 1}, 2: {"needs": 2, "ms": 15}, 4: {"needs": 1}},
                calls=_ALL,
                end=End(calls=_DONE),
            ),
        ),
        every=2,
    ),
    Scenario(
        "fails",
        "a step that dies and stops its run, with callbacks that the keeper calls",
        (
            Run(
                chain(_J, group(_J, _J, chain(_J, _J)), _J),
                {1: {"dies": "stops"}, 3: {"dies": "caught"}, 4: {"ms": 30}},
                calls=_ALL,
                end=End("failed", {"failure": "failed", "complete": "failed"}, never=frozenset({5})),
            ),
        ),
        keeps=True,
        # The keeper goes on until it is stopped.
        every=2,
        dense=90,
        stride=9,
        patience=15.0,
    ),
    Scenario(
        "waits",
        "steps that wait for signals of other steps, and one whose time is over",
        (
            Run(
                chain(group(chain(_J, _J), chain(_J, _J), _J), _J),
                # 1 sends the signals, before or after the others wait.
                {1: {"acts": ["signal"]}, 2: {"waits": True}, 4: {"late": 40}, 5: {"waits": True}},
                calls=_ALL,
                end=End(calls=_DONE),
            ),
        ),
        every=2,
    ),
    Scenario(
        "paused",
        "a run that another process pauses and resumes",
        (
            Run(
                chain(_J, group(_J, chain(_J, delay(20, _J)), _J, _J, _J), _J, _J),
                {n: {"ms": 15} for n in range(9) if n != 3} | {3: {"dies": "caught"}},
                calls=_ALL,
                end=End(calls=_DONE),
            ),
        ),
        steered=2,
        every=2,
        patience=12.0,
    ),
    Scenario(
        "cancelled",
        "a step that cancels its run, between others",
        (
            Run(
                chain(_J, group(_J, _J, chain(_J, delay(20, _J)), _J, _J), _J),
                {1: {"acts": ["cancel"]}, 2: {"ms": 15}, 3: {"ms": 15}},
                calls=_ALL,
                end=End("cancelled", {"complete": "cancelled"}, frozenset({7}), frozenset({2, 3, 4, 5, 6}), False),
            ),
        ),
        every=2,
    ),
    Scenario(
        "steers",
        "a producer that starts runs, and pauses, resumes, signals and cancels them, each again after an error",
        (
            Run(_TAIL, by="producer", steers=("pause", "resume"), calls=_ALL, end=End(calls=_DONE)),
            Run(chain(delay(20, _J), _J), by="producer", steers=("pause", "resume")),
            Run(group(_J, _J), {1: {"waits": True}}, by="producer", steers=("signal",)),
            Run(
                chain(group(_J, delay(30, _J)), _J),
                by="producer",
                steers=("cancel",),
                calls=_ALL,
                end=End("cancelled", {"complete": "cancelled"}, frozenset({0, 1, 2})),
            ),
        ),
        hurt="producer",
        every=2,
    ),
    Scenario(
        "revives",
        "a process that retries, restarts, signals, pauses and cancels runs that rest",
        (
            Run(chain(_J, _J, _J), {1: {"fail": "mended"}}, steers=("retry",)),
            Run(chain(_J, group(_J, _J)), {1: {"fail": "mended", "may": True}}, steers=("restart",)),
            Run(chain(_J, _J, _J), {1: {"waits": True}}, steers=("pause", "signal", "resume")),
            Run(chain(_J, _J), {1: {"waits": True}}, steers=("signal",)),
            Run(
                chain(_J, delay(3_600_000, _J), _J),
                steers=("pause", "cancel"),
                calls=_ALL,
                end=End("cancelled", {"complete": "cancelled"}, frozenset({1, 2})),
            ),
        ),
        hurt="producer",
        prepared=True,
        every=2,
    ),
)
