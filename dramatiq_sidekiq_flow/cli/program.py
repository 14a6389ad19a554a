"""The command's names and exit codes."""

from __future__ import annotations

#: The command's name, and its name without an entry point.
PROGRAM = "sidekiq-flow"
MODULE = "python -m dramatiq_sidekiq_flow"

ERROR = 2
#: As a shell gives them for a process that SIGINT or SIGPIPE ended.
INTERRUPTED, PIPE_CLOSED = 130, 141
