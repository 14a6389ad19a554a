"""The seven ways to hurt a command."""

from __future__ import annotations

import attrs


@attrs.frozen
class Mode:
    """One way.

    Attributes:
      what: For the table and ``--list``.
      kills: Whether the worker is dead after it.
    """

    name: str
    what: str
    kills: bool = False


KILL_BEFORE = Mode("kill-before", "killed -9 before the command reaches Redis", kills=True)
KILL_AFTER = Mode("kill-after", "killed -9 when Redis has executed it, before the reply", kills=True)
DROP = Mode("drop", "reply dropped: the connection is closed, the worker lives")
CUT = Mode("cut", "half of its bytes reach Redis, then both sides are closed")
CUT_KILL = Mode("cut-kill", "half of its bytes reach Redis, and the worker is killed -9", kills=True)
REFUSE = Mode("refuse", "refused with an error of the server, not executed")
LATE = Mode("late", "held back, and delivered when its repetition was answered")

MODES = {mode.name: mode for mode in (KILL_BEFORE, KILL_AFTER, DROP, CUT, CUT_KILL, REFUSE, LATE)}

#: What a server refuses commands with; a point takes one by its number.
ERRORS = (
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "NOREPLICAS Not enough good replicas to write.",
    "NOSCRIPT No matching script. Please use EVAL.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
)


def error_of(number: int, *, of_script: bool) -> str:
    """The error of a point; only a script that is sent by its SHA can be unknown."""
    error = ERRORS[number % len(ERRORS)]
    if error.startswith("NOSCRIPT") and not of_script:
        error = ERRORS[(number // len(ERRORS)) % 5]
    return error
