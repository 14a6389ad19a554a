"""The oldest versions that are tested are those that pyproject.toml allows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..release import pythons

ROOT = Path(__file__).parent.parent.parent


def bounds(text: str) -> dict[str, str]:
    """Package -> lower bound, of the dependencies in a pyproject.toml, and of the web page."""
    blocks = re.findall(r"^(?:dependencies|web) = \[(.*?)\]$", text, re.DOTALL | re.MULTILINE)
    return dict(re.findall(r'"([\w-]+)>=([\d.]+)', " ".join(blocks)))


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.MULTILINE))


def same(one: dict[str, str], two: dict[str, str]) -> bool:
    """Whether versions are equal; 5.3 is 5.3.0."""
    return {name: _parts(version) for name, version in one.items()} == {name: _parts(v) for name, v in two.items()}


def _parts(version: str) -> list[int]:
    return [int(part) for part in (version + ".0.0").split(".")[:3]]


def test_the_floor_is_what_pyproject_allows() -> None:
    allowed = bounds((ROOT / "pyproject.toml").read_text("utf-8"))
    assert len(allowed) == 11
    assert same(allowed, pins(pythons.FLOOR.read_text("utf-8")))


def test_another_floor_is_seen() -> None:
    text = 'dependencies = [\n    "redis>=5.3",\n]\n'
    assert same(bounds(text), pins("# oldest\nredis==5.3.0\n"))
    assert not same(bounds(text), pins("redis==5.3.1\n"))
    assert not same(bounds(text), pins("redis==5.3.0\nattrs==23.1.0\n"))


def test_the_oldest_python_is_the_one_that_is_required() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'requires-python = ">={pythons.WANTED["floor"][0]}"' in text
    classified = re.findall(r"Python :: (3\.\d+)", text)
    assert sorted(classified) == sorted(pythons.WANTED["floor"])


def test_no_extra_is_empty() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (extras,) = re.findall(r"^\[project\.optional-dependencies\]$(.*?)^\[", text, re.DOTALL | re.MULTILINE)
    assert re.findall(r"^[\w-]+ = \[", extras, re.MULTILINE)
    assert not re.findall(r"^[\w-]+ = \[\s*\]", extras, re.MULTILINE)


def python(folder: Path, version: str, says: str) -> None:
    path = folder / f"python{version}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {says}\n", "utf-8")
    path.chmod(0o755)


def test_pythons_are_found_and_missing_ones_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(pythons, "WANTED", {"newest": ("9.14t", "9.14", "9.13")})
    with pytest.raises(LookupError, match=r"9\.14t, 9\.14, 9\.13"):
        pythons.choose("newest")
    python(tmp_path / "bin", "9.14", "9.12")  # a shim that starts another
    python(tmp_path / "pyenv/versions/9.13.1/bin", "9.13", "9.13")
    version, path, missing = pythons.choose("newest")
    assert (version, missing) == ("9.13", ["9.14t", "9.14"])
    assert path.endswith("9.13.1/bin/python9.13")
    python(tmp_path / "bin", "9.14", "9.14")
    assert pythons.choose("newest")[2] == ["9.14t"]


def test_this_python_is_told_by_its_version() -> None:
    done = subprocess.run((sys.executable, "-c", pythons._VERSION), capture_output=True, text=True, check=True)
    assert done.stdout.strip().rstrip("t") == f"{sys.version_info[0]}.{sys.version_info[1]}"
