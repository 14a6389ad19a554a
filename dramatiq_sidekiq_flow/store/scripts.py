"""The Lua scripts: one file an operation, its name is the file's.

A script is sent by its SHA; where the server does not know it (a restart, a
failover, SCRIPT FLUSH) it is loaded and sent again, which every script here
allows.
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
PROCESS = Script("process")
PROMOTE = Script("promote")
PUSH = Script("push")
READ_CALLBACKS = Script("read_callbacks")
RECOVER = Script("recover")
RELEASE = Script("release")
REMEMBER = Script("remember")
REQUEUE = Script("requeue")
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
    PROCESS,
    PROMOTE,
    PUSH,
    READ_CALLBACKS,
    RECOVER,
    RELEASE,
    REMEMBER,
    REQUEUE,
    STAGE,
    START,
    STORE_CALLBACKS,
    TRIAL,
)
