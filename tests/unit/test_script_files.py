"""The files of the Lua scripts: how parts are included, and what each file says of itself."""

from __future__ import annotations

import re
from collections import Counter
from importlib import resources

import pytest

from dramatiq_sidekiq_flow.store import scripts

FILES = {
    path.name.removesuffix(".lua"): path.read_text("utf-8")
    for path in (resources.files("dramatiq_sidekiq_flow.store") / "lua").iterdir()
}
SCRIPTS = sorted(name for name in FILES if not name.startswith("_"))
PARTS = sorted(name for name in FILES if name.startswith("_"))

_INCLUDED = re.compile(r"^-- @include (_\w+)$", re.MULTILINE)
_FUNCTION = re.compile(r"\bfunction\s+([\w.:]+)")
_CONSTANT = re.compile(r"^local ([A-Z_]+) =", re.MULTILINE)


def resolve(name: str, files: dict[str, str]) -> str:
    """A script of these files."""

    def read(name: str) -> str:
        if name not in files:
            raise FileNotFoundError(name)
        return files[name]

    return scripts.resolve(name, read)


def head(text: str) -> str:
    """The comment that a file opens with, without its signs."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line[2:].strip())
    return "\n".join(lines)


def code(text: str) -> str:
    """A file without its comments."""
    return "\n".join(line.partition("--")[0] for line in text.splitlines())


def functions(text: str) -> list[str]:
    """The functions that a file defines."""
    return _FUNCTION.findall(code(text))


def offered(text: str) -> list[str]:
    """The functions and constants of a part."""
    return functions(text) + _CONSTANT.findall(code(text))


def named(words: list[str], text: str) -> list[str]:
    """Those of the words that are in a text."""
    return [word for word in words if re.search(rf"\b{word}\b", text)]


# -- includes --------------------------------------------------------------------


def test_a_part_stands_where_it_is_included() -> None:
    files = {"a": "-- A.\n-- @include _p\nreturn p()\n", "_p": "local p\n"}
    assert resolve("a", files) == "-- A.\nlocal p\nreturn p()\n"


def test_each_part_is_included_once_and_before_it_is_needed() -> None:
    files = {
        "a": "-- @include _p\n-- @include _q\n-- @include _r\nreturn 1\n",
        "_p": "-- @include _r\np\n",
        "_q": "-- @include _p\n-- @include _r\nq\n",
        "_r": "r\n",
    }
    assert resolve("a", files) == "r\np\nq\nreturn 1\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "-- @include _p\n"}, "a.lua includes '_p': there is no file _p.lua"),
        ({"a": "-- @include _p\n", "_p": "-- @include _q\n"}, "_p.lua includes '_q': there is no file _q.lua"),
        ({"a": "-- @include _p q\n", "_p": ""}, "a.lua includes '_p q': there is no file _p q.lua"),
        ({"a": "--@include\n"}, "a.lua includes '': the name of a part begins with '_'"),
        ({"a": "-- @include b\n", "b": ""}, "a.lua includes 'b': the name of a part begins with '_'"),
        ({}, "there is no file a.lua"),
        (
            {"a": "-- @include _p\n", "_p": "-- @include _q\n", "_q": "-- @include _p\n"},
            "Lua files include each other: a -> _p -> _q -> _p",
        ),
        ({"a": "-- @include _p\n", "_p": "-- @include _p\n"}, "Lua files include each other: a -> _p -> _p"),
    ],
)
def test_an_include_that_cannot_be_resolved_is_named(files: dict[str, str], message: str) -> None:
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        resolve("a", files)


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_left_to_include(name: str) -> None:
    assert "@include" not in scripts.resolve(name)


@pytest.mark.parametrize("name", PARTS)
def test_each_part_is_included_by_a_script(name: str) -> None:
    text = FILES[name]
    assert any(text.splitlines()[0] in scripts.resolve(script) for script in SCRIPTS)


def test_each_file_is_a_script_or_a_part() -> None:
    assert sorted(script.name for script in scripts.ALL) == SCRIPTS


# -- what stands once --------------------------------------------------------------


def test_no_function_is_defined_twice() -> None:
    names = Counter(name for text in FILES.values() for name in functions(text))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_includes_what_it_calls_and_nothing_else(name: str) -> None:
    """What it calls may come with a part that includes another."""
    own = code(FILES[name])
    called = [part for part in PARTS if named(offered(FILES[part]), own)]
    whole = scripts.resolve(name)
    assert [part for part in called if FILES[part].splitlines()[0] not in whole] == []
    assert [part for part in _INCLUDED.findall(FILES[name]) if part not in called] == []


# -- contracts -----------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_opens_with_its_contract(name: str) -> None:
    """What it does, in the third person; keys, arguments and reply, in this order."""
    contract = head(FILES[name])
    assert re.match(r"[A-Z][a-z]+s ", contract)
    parts = [contract.find(f"\n{word}: ") for word in ("KEYS", "ARGV", "Returns")]
    assert -1 not in parts
    assert parts == sorted(parts)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_opens_with_what_it_offers(name: str) -> None:
    names = offered(FILES[name])
    assert names
    assert named(names, head(FILES[name])) == names
