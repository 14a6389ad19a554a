"""The Lua scripts: one file an operation, its name is the file's.

A script is sent by its SHA.  Where the server does not know it (a restart, a
failover, SCRIPT FLUSH) the source is sent in its place, after which the server
knows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import resources

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

_WITH_PLAN = ("advance", "count", "release", "start")


class Script:
    """One Lua file."""

    def __init__(self, name: str) -> None:
        folder = resources.files(__package__) / "lua"
        self.name = name
        self.source = (folder / f"{name}.lua").read_text("utf-8")
        if name in _WITH_PLAN:
            self.source = (folder / "_plan.lua").read_text("utf-8") + self.source
        self.sha = hashlib.sha1(self.source.encode()).hexdigest()  # noqa: S324 - Redis names scripts so

    def command(self, keys: Iterable[Argument], arguments: Iterable[Argument]) -> Command:
        """The command that runs the script."""
        keys = tuple(keys)
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


ADVANCE = Script("advance")
BEAT = Script("beat")
BEGIN = Script("begin")
BURY = Script("bury")
COUNT = Script("count")
DUE = Script("due")
EXTEND = Script("extend")
FAIL = Script("fail")
FETCH = Script("fetch")
FIRED = Script("fired")
FLUSH = Script("flush")
OWN_CALLBACKS = Script("own_callbacks")
POUR = Script("pour")
PROCESS = Script("process")
PROMOTE = Script("promote")
PUSH = Script("push")
READ_CALLBACKS = Script("read_callbacks")
RECOVER = Script("recover")
RELEASE = Script("release")
RELEASE_CALLBACKS = Script("release_callbacks")
REMEMBER = Script("remember")
REQUEUE = Script("requeue")
RESUME = Script("resume")
STAGE = Script("stage")
START = Script("start")
STORE_CALLBACKS = Script("store_callbacks")
TRIAL = Script("trial")

ALL = (
    ADVANCE,
    BEAT,
    BEGIN,
    BURY,
    COUNT,
    DUE,
    EXTEND,
    FAIL,
    FETCH,
    FIRED,
    FLUSH,
    OWN_CALLBACKS,
    POUR,
    PROCESS,
    PROMOTE,
    PUSH,
    READ_CALLBACKS,
    RECOVER,
    RELEASE,
    RELEASE_CALLBACKS,
    REMEMBER,
    REQUEUE,
    RESUME,
    STAGE,
    START,
    STORE_CALLBACKS,
    TRIAL,
)

_SOURCES = {script.sha: script.source for script in ALL}


def with_source(command: Command) -> Command:
    """The command that runs a script by its source, for the one that runs it by its SHA."""
    _, sha, *rest = command
    return ("EVAL", _SOURCES[str(sha)], *rest)
