"""Reads the corpus."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

HERE = Path(__file__).parent

#: What every job of the corpus is, unless a member says otherwise.
QUEUE = "corpus"
CLASS = "Corpus::Job"
NEXT = "Corpus::Next"
FAILURE = "Corpus::Failure"

#: The key that says which member a job is.  It is unknown to all, and kept by all.
NAME_KEY = "corpus"

Runner = Literal["python", "companion", "companion 8"]

#: Where a member can lie, and ``fails``: in the queue, of a job that raises an error.
PLACES = ("queue", "schedule", "retry", "dead", "in flight", "fails")

#: Where a place says nothing, another one does.
_FALLBACKS = {"schedule": "queue", "retry": "schedule", "in flight": "queue"}

Command = tuple[Any, ...]


@attrs.frozen
class Member:
    """Bytes that someone may push, and what becomes of them.

    Attributes:
      name: Unique in the corpus.
      why: What is wrong or odd.
      raw: The bytes.
      expect: Place -> outcome, of Python.
      companion: Those that differ with the companion.
      companion_8: Those that differ from these where Sidekiq 8 runs, whose Ruby has a newer JSON.
      redis: Commands before it is put anywhere.
      cure: Commands after which it can be retried from ``dead``.
      follows: How often its continuation has run at the end (after the cure, where there is one).
    """

    name: str
    why: str
    raw: bytes
    expect: Mapping[str, str]
    companion: Mapping[str, str]
    companion_8: Mapping[str, str]
    redis: tuple[Command, ...] = ()
    cure: tuple[Command, ...] = ()
    follows: int = 0

    def outcome(self, runner: Runner, place: str) -> str:
        """What becomes of it in a place."""
        said = dict(self.expect)
        if runner != "python":
            said |= self.companion
        if runner == "companion 8":
            said |= self.companion_8
        if place == "dead":
            return said.get("dead", "stays")
        if place == "fails":
            ran = said["queue"].startswith(("runs", "ran,"))
            return said.get("fails", f"ran, dead {FAILURE}" if ran else said["queue"])
        while place not in said:
            place = _FALLBACKS[place]
        return said[place]


def raw_of(entry: Mapping[str, Any]) -> bytes:
    """The bytes of an entry."""
    if "text" in entry:
        return bytes(entry["text"].encode())
    if "base64" in entry:
        return base64.b64decode(entry["base64"], validate=True)
    if "parts" in entry:
        return b"".join(map(_part, entry["parts"]))
    fields = {
        "class": CLASS,
        "args": [entry["name"]],
        "jid": hashlib.sha1(entry["name"].encode()).hexdigest()[:24],  # noqa: S324 - an id, not a secret
        "queue": QUEUE,
        "retry": 0,
        NAME_KEY: entry["name"],
        **entry["job"],
    }
    for name in entry.get("without", ()):
        del fields[name]
    return json.dumps(fields, separators=(",", ":")).encode()


def _part(part: Any) -> bytes:
    if isinstance(part, str):
        return part.encode()
    if "base64" in part:
        return base64.b64decode(part["base64"], validate=True)
    repeated: str = part["repeat"]
    return repeated.encode() * int(part["times"])


def members() -> list[Member]:
    """All members, in the order of the files."""
    found = []
    for path in sorted((HERE / "members").glob("*.json")):
        for entry in json.loads(path.read_text("utf-8"))["members"]:
            found.append(
                Member(
                    entry["name"],
                    entry["why"],
                    raw_of(entry),
                    _of_this_python(entry),
                    entry.get("companion", {}),
                    entry.get("companion 8", {}),
                    _commands(entry.get("redis", ())),
                    _commands(entry.get("cure", ())),
                    entry.get("follows", 0),
                )
            )
    return found


def _of_this_python(entry: Mapping[str, Any]) -> dict[str, str]:
    """What Python does.  From 3.12 on, its recursion limit is not that of C code: msgspec reads deeper values."""
    later = entry.get("python 3.12", {}) if sys.version_info >= (3, 12) else {}
    return {**entry["expect"], **later}


def _commands(commands: Iterable[Any]) -> tuple[Command, ...]:
    return tuple(tuple(command) for command in commands)


@attrs.frozen
class WrongKey:
    """A key of Redis that holds another type than it should.

    Attributes:
      key: Its name; ``OWN`` stands for the identity of the worker.
      made: The type that it is made.
      works: Which good jobs are done beside it: ``all``, those in the ``queue``, or ``none`` before its removal.
      logs: What a line of the log must contain: its name where the log has it.
      effect: ``kept``: nothing overwrites it. ``replaced``: its owner writes it anew.
      due: ``runs``, or where the jobs that become due beside it are, as in an outcome.
      redis: Commands before it is made.
    """

    key: str
    made: str
    works: str
    logs: str
    effect: str
    due: str
    redis: tuple[Command, ...] = ()

    @property
    def name(self) -> str:
        """The name of its test."""
        return f"{self.key} as {self.made}"


def wrong_keys(runner: Runner) -> list[WrongKey]:
    """The keys for a runner: those of a Python worker alone are not for the companion."""
    found = []
    for entry in json.loads((HERE / "keys.json").read_text("utf-8"))["keys"]:
        said = {"logs": "", "effect": "kept", "due": "runs", **entry}
        if runner != "python":
            if entry.get("only") == "python":
                continue
            said |= entry.get("companion", {})
        for made in entry["made"]:
            own = {**said, **said.get(f"as {made}", {})}
            found.append(
                WrongKey(
                    own["key"],
                    made,
                    own["works"],
                    own["logs"],
                    own["effect"],
                    own["due"],
                    _commands(entry.get("redis", ())),
                )
            )
    return found
