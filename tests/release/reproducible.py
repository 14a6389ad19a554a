"""Build the sdist and the wheel twice, under different circumstances, and compare them: ``make reproducible``.

The second build has another folder, umask, time zone, locale, hash seed and
times of files.  Exit code 1 where the bytes differ; the members that differ are printed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from .archives import digest, members
from .build import BuildFailed, build, copy

#: Umask, times of files, and environment of each build.
BUILDS = (
    (0o022, 1_500_000_000, {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
    (0o077, 1_600_000_000, {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"}),
)


def archives(folder: Path, umask: int, mtime: int, environment: dict[str, str]) -> dict[str, Path]:
    """Build in a folder of its own; the archives by name."""
    source = folder / "source"
    copy(source, umask=umask)
    for path in source.rglob("*"):
        os.utime(path, (mtime, mtime))
    return {path.name: path for path in build(source, folder / "dist", environment, umask=umask)}


def differences(one: Path, two: Path) -> list[str]:
    """The members of two archives that are not the same; none where the bytes are."""
    if one.read_bytes() == two.read_bytes():
        return []
    first, second = members(one), members(two)
    names = sorted(first.keys() | second.keys())
    lines = [f"  {name}\n    {first.get(name)}\n    {second.get(name)}" for name in names]
    return [line for name, line in zip(names, lines) if first.get(name) != second.get(name)] or ["  their packing"]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dsf-build-") as folder:
        try:
            one, two = (archives(Path(folder) / str(n), *circumstances) for n, circumstances in enumerate(BUILDS))
        except BuildFailed as e:
            print(e, file=sys.stderr)
            return 1
        failed = one.keys() != two.keys()
        for name in sorted(one.keys() & two.keys()):
            found = differences(one[name], two[name])
            print(f"{'DIFFERS' if found else 'same   '}  {digest(one[name].read_bytes())}  {name}")
            for line in found:
                print(line)
            failed = failed or bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
