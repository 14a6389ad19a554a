"""Archives of a release do not depend on the machine that builds them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from ..release.archives import members, normalize
from ..release.audit import needed
from ..release.build import ROOT
from ..release.installed import PRINTED, NotWorking, example
from ..release.reproducible import differences

FILES = {"a/x.py": b"print()", "a/run.sh": b"#!/bin/sh", "b.txt": b"b"}


def wheel(path: Path, names: list[str], mode: int, year: int) -> None:
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            info = zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0))
            info.external_attr = (mode | (0o100 if name.endswith(".sh") else 0)) << 16
            made.writestr(info, FILES[name])


def sdist(path: Path, names: list[str], mode: int, year: int) -> None:
    with tarfile.open(path, "w:gz") as made:
        for name in names:
            info = tarfile.TarInfo(name)
            info.mtime, info.uid, info.uname, info.size = year * 1000, year, f"user{year}", len(FILES[name])
            info.mode = mode | (0o100 if name.endswith(".sh") else 0)
            made.addfile(info, io.BytesIO(FILES[name]))


@pytest.mark.parametrize(("make", "suffix"), [(wheel, ".whl"), (sdist, ".tar.gz")])
def test_times_rights_owners_and_order_do_not_matter(tmp_path: Path, make: object, suffix: str) -> None:
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    assert callable(make)
    make(one, list(FILES), 0o644, 2020)
    make(two, list(reversed(FILES)), 0o600, 2021)
    assert differences(one, two)
    for path in (one, two):
        normalize(path, 1_700_000_000)
    assert differences(one, two) == []
    found = members(one)
    assert sorted(found) == sorted(FILES)
    assert [name for name in found if "755 " in found[name]] == ["a/run.sh"]
    if suffix == ".whl":
        with zipfile.ZipFile(one) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == FILES


def test_another_content_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one.whl", tmp_path / "two.whl"
    wheel(one, list(FILES), 0o644, 2020)
    monkeypatch.setitem(FILES, "b.txt", b"c")
    wheel(two, list(FILES), 0o644, 2020)
    for path in (one, two):
        normalize(path, 1_700_000_000)
    (line,) = differences(one, two)
    assert "b.txt" in line


def test_the_audit_asks_for_what_is_needed_to_run() -> None:
    found = needed("dramatiq-sidekiq-flow")
    assert {"dramatiq", "redis", "attrs", "cattrs", "msgspec"} <= found.keys()
    assert not {"pytest", "ruff"} & found.keys()


def test_the_example_of_the_readme_is_found() -> None:
    code = example((ROOT / "README.md").read_text("utf-8"))
    assert code.startswith("# app.py\n")


@pytest.mark.parametrize("readme", ["", "```python\n# app.py\nprint()\n```\n", f"```python\n# other\n{PRINTED}\n```\n"])
def test_a_readme_without_its_example_is_said(readme: str) -> None:
    with pytest.raises(NotWorking, match="README"):
        example(readme)
