"""The command's names and exit codes."""

from __future__ import annotations

#: The command's name, and its name without an entry point.
PROGRAM = "sidekiq-flow"
MODULE = "python -m dramatiq_sidekiq_flow"

FAILED, ERROR = 1, 2
#: As a shell gives them for a process that SIGINT, SIGPIPE or SIGTERM ended.
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143
