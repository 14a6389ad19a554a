"""What a soak is run with."""

from __future__ import annotations

import attrs

#: Disturbances a minute.  Half of the kills are -9, half are TERM.
RATES = {
    "kill": 26.0,
    "term": 26.0,
    "pause": 3.0,
    "cut": 6.0,
    "restart": 2.0,
    "flush": 6.0,
    "oom": 1.5,
    "readonly": 1.5,
    "busy": 1.5,
}

#: What each of them is, in the order of the report.
KINDS = {
    "kill": "killed with -9",
    "term": "stopped with TERM",
    "pause": "paused past the heartbeat",
    "cut": "connections cut",
    "restart": "server killed, restarted",
    "flush": "SCRIPT FLUSH",
    "oom": "OOM for 1 to 2 s",
    "readonly": "READONLY for 1 to 2 s",
    "busy": "BUSY for 1 to 2 s",
}

#: Of these, the ones that are done to worker processes.
TO_WORKERS = frozenset({"kill", "term", "pause"})


@attrs.frozen
class Settings:
    """One column's share of a soak.  Times are in seconds."""

    seed: int
    #: For how long it is disturbed.
    seconds: float
    python: int = 3
    ruby: int = 3
    threads: int = 5
    #: Silence after which a worker is dead.
    heartbeat: float = 3.0
    #: Longest step, in milliseconds; the shortest takes 0.
    longest: int = 150
    #: The share of executions that raise.
    fail: float = 0.03
    #: Workflows under way at once, and started in a second, at most.
    at_once: int = 40
    rate: float = 10.0
    #: A run that takes longer does not count as under way.
    overdue: float = 20.0
    #: How long nothing may happen before a column that is not at rest is given up.
    patience: float = 40.0
    #: Bytes from which chains are kept by reference; None for never.
    references: int | None = None
