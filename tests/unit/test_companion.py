"""The Ruby companion: what is built is up to date, and its scripts are the very scripts that Python sends."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from dramatiq_sidekiq_flow import __version__
from dramatiq_sidekiq_flow.store import scripts
from interop import companion

COMPANION = companion.RUBY / "sidekiq_flow_companion.rb"


def _sha(lua: bytes) -> str:
    return hashlib.sha1(lua).hexdigest()  # noqa: S324 - Redis names scripts so


def test_what_is_built_is_up_to_date() -> None:
    assert companion.out_of_date() == [], "store/lua, the version or the gem was changed: make companion"


def test_a_script_that_ruby_no_longer_sends_is_out_of_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companion, "LUA", tmp_path)
    old = tmp_path / "gone.lua"
    old.write_text("return 1\n", "utf-8")
    assert old in companion.out_of_date()


def test_the_gem_knows_the_scripts_by_the_same_sha() -> None:
    ours = {script.name: script.sha for script in scripts.ALL}
    held = {path.stem: _sha(path.read_bytes()) for path in companion.LUA.glob("*.lua")}
    assert sorted(held) == sorted(companion.SCRIPTS)
    assert held == {name: ours[name] for name in companion.SCRIPTS}


def test_the_file_to_copy_knows_the_scripts_by_the_same_sha() -> None:
    """Read as the file itself reads them: nothing stands between the scripts."""
    lua = COMPANION.read_text("utf-8").split("\n__END__\n", 1)[1]
    parts = re.split(r"^-- @file (\w+)\.lua\n", lua, flags=re.MULTILINE)
    held = {name: _sha(text.encode()) for name, text in zip(parts[1::2], parts[2::2])}
    assert parts[0] == ""
    assert held == {script.name: script.sha for script in scripts.ALL if script.name in companion.SCRIPTS}


def test_the_files_to_copy_say_where_they_come_from() -> None:
    for path in companion.BUILT:
        head = path.read_text("utf-8").splitlines()[2]
        assert "make companion" in head, path.name
        assert __version__ in head, path.name


def test_the_version_is_the_packages() -> None:
    assert f'VERSION = "{__version__}"' in companion.VERSION.read_text("utf-8")
    assert f'VERSION = "{__version__}"' in COMPANION.read_text("utf-8")


def test_the_file_to_copy_needs_no_other_file_of_ours() -> None:
    for path in companion.BUILT:
        assert "require_relative" not in re.sub(r"^#.*$", "", path.read_text("utf-8"), flags=re.MULTILINE), path.name


def test_no_file_of_the_gem_is_longer_than_250_lines() -> None:
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in companion.LIB.rglob("*.rb")}
    assert len(lengths) > 30
    assert {name: length for name, length in lengths.items() if length > 250} == {}
