"""The Lua scripts, one file per operation; a script has the name of its file.

A script is sent by its SHA.  If the server does not know it (after a restart, a
failover, SCRIPT FLUSH) its source is sent instead, and then the server knows it.

Files whose names begin with ``_`` are parts, functions that several scripts
need.  A line ``-- @include _types`` in a script, or in a part, stands for the
text of that part.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

_FOLDER = Path(__file__).parent / "lua"

#: A line that includes a part. It takes a wrong name as well, so that an error names it.
_INCLUDE = re.compile(r"^--\s*@include\b(.*)\n", re.MULTILINE)


@functools.cache
def read_file(name: str) -> str:
    """The text of one Lua file, with its includes as lines.

    Raises:
      FileNotFoundError: if there is no such file.
    """
    return (_FOLDER / f"{name}.lua").read_text("utf-8")


def resolve(name: str, read: Callable[[str], str] = read_file) -> str:
    """The text of a script with its parts in place of its includes.

    A part stands where it is included first, and is left out after that.

    Raises:
      ImportError: if a part is missing, or includes itself.
    """
    resolved: set[str] = set()

    def text_of(name: str, path: tuple[str, ...]) -> str:
        def part(include: re.Match[str]) -> str:
            included = include[1].strip()
            if included in path:
                raise ImportError(f"Lua files include each other: {' -> '.join((*path, included))}")
            if included in resolved:
                return ""
            resolved.add(included)
            return text_of(included, (*path, included))

        return _INCLUDE.sub(part, _text(name, path, read))

    return text_of(name, (name,))


def _text(name: str, path: tuple[str, ...], read: Callable[[str], str]) -> str:
    """The text of a file that the last but one of the path includes."""
    if len(path) > 1 and not name.startswith("_"):
        raise ImportError(f"{path[-2]}.lua includes {name!r}: the name of a part begins with '_'")
    try:
        return read(name)
    except FileNotFoundError as e:
        includer = f"{path[-2]}.lua includes {name!r}: " if len(path) > 1 else ""
        raise ImportError(f"{includer}there is no file {name}.lua") from e


class Script:
    """One operation.

    Attributes:
      name: Of its file.
      source: What the server runs: its file, with the parts that it includes.
      sha: The name that the server gives it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = resolve(name)
        self.sha = hashlib.sha1(self.source.encode()).hexdigest()  # noqa: S324 - Redis names scripts so

    def command(self, keys: Iterable[Argument], arguments: Iterable[Argument]) -> Command:
        """The command that runs the script."""
        keys = tuple(keys)
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


ADVANCE = Script("advance")
ADVANCE_GROUP = Script("advance_group")
BEAT = Script("beat")
BEGIN = Script("begin")
BURY = Script("bury")
CALL_BACK = Script("call_back")
CANCEL = Script("cancel")
COUNT = Script("count")
DISARM = Script("disarm")
DROP_FANOUT = Script("drop_fanout")
DROP_JOBS = Script("drop_jobs")
DUE = Script("due")
EXTEND = Script("extend")
FAIL = Script("fail")
FETCH = Script("fetch")
FIND_JOBS = Script("find_jobs")
FIRED = Script("fired")
FLUSH = Script("flush")
HOLD_BARRIERS = Script("hold_barriers")
KEEP = Script("keep")
MARK_DEAD = Script("mark_dead")
NOTE_DEATH = Script("note_death")
NOTE_REPEAT = Script("note_repeat")
OWN_CALLBACKS = Script("own_callbacks")
PARK = Script("park")
PARK_FANOUT = Script("park_fanout")
PARK_JOBS = Script("park_jobs")
PAUSE = Script("pause")
POUR = Script("pour")
PROCESS = Script("process")
PROMOTE = Script("promote")
PUSH = Script("push")
READ_CALLBACKS = Script("read_callbacks")
REARM = Script("rearm")
RECOVER = Script("recover")
RELEASE = Script("release")
RELEASE_CALLBACKS = Script("release_callbacks")
REMEMBER = Script("remember")
REPLACE = Script("replace")
REPLACE_DEAD = Script("replace_dead")
REQUEUE = Script("requeue")
RESTART = Script("restart")
RESUME = Script("resume")
RETRY_DEAD = Script("retry_dead")
SIGNAL = Script("signal")
START = Script("start")
STORE_CALLBACKS = Script("store_callbacks")
TRIAL = Script("trial")
UNPARK = Script("unpark")
UNPAUSE = Script("unpause")
WAIT = Script("wait")

ALL = (
    ADVANCE,
    ADVANCE_GROUP,
    BEAT,
    BEGIN,
    BURY,
    CALL_BACK,
    CANCEL,
    COUNT,
    DISARM,
    DROP_FANOUT,
    DROP_JOBS,
    DUE,
    EXTEND,
    FAIL,
    FETCH,
    FIND_JOBS,
    FIRED,
    FLUSH,
    HOLD_BARRIERS,
    KEEP,
    MARK_DEAD,
    NOTE_DEATH,
    NOTE_REPEAT,
    OWN_CALLBACKS,
    PARK,
    PARK_FANOUT,
    PARK_JOBS,
    PAUSE,
    POUR,
    PROCESS,
    PROMOTE,
    PUSH,
    READ_CALLBACKS,
    REARM,
    RECOVER,
    RELEASE,
    RELEASE_CALLBACKS,
    REMEMBER,
    REPLACE,
    REPLACE_DEAD,
    REQUEUE,
    RESTART,
    RESUME,
    RETRY_DEAD,
    SIGNAL,
    START,
    STORE_CALLBACKS,
    TRIAL,
    UNPARK,
    UNPAUSE,
    WAIT,
)

_SOURCES = {script.sha: script.source for script in ALL}

# The scripts hold the text of the parts.
read_file.cache_clear()


def with_source(command: Command) -> Command:
    """The command that runs a script by its source, from the one that runs it by its SHA."""
    name, sha, *rest = command
    return ("EVAL_RO" if name == "EVALSHA_RO" else "EVAL", _SOURCES[str(sha)], *rest)


def read_only(command: Command) -> Command:
    """The command that runs a script which only reads, from the one that runs any: it needs no right to write."""
    return ("EVALSHA_RO", *command[1:])
