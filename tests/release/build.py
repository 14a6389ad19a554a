"""Build the sdist and the wheel into ``dist``: ``make dist``.

Only files that git knows go in.  The time of each member is that of the last
commit, so each build of the same commit gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from .archives import digest, normalize

ROOT = Path(__file__).parent.parent.parent

#: What the wheel must hold, and the only folders that it may.
NEEDED = (
    "py.typed",
    "store/lua/advance.lua",
    "ruby/sidekiq_flow_companion.rb",
    "ruby/sidekiq_flow_registry.rb",
    "ruby/sidekiq-flow/sidekiq-flow.gemspec",
    "ruby/sidekiq-flow/README.md",
    "ruby/sidekiq-flow/CHANGELOG.md",
    "web/static/runs.css",
    "web/static/runs.js",
)
FOLDER = "dramatiq_sidekiq_flow"


class BuildFailed(Exception):
    """The build ended with an error, or the wheel is not complete."""


def git(*arguments: str) -> str:
    return subprocess.run(("git", *arguments), cwd=ROOT, check=True, capture_output=True, text=True).stdout


def epoch() -> int:
    """Time of the last commit, in epoch seconds."""
    return int(git("log", "-1", "--format=%ct"))


def copy(source: Path, *, umask: int = 0o022) -> None:
    """Copy the files that git knows."""
    for name in git("ls-files", "-z").split("\0"):
        if name and (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
            target.chmod((0o777 if os.access(ROOT / name, os.X_OK) else 0o666) & ~umask)


def build(source: Path, made: Path, environment: Mapping[str, str] = {}, *, umask: int = 0o022) -> list[Path]:
    """Build both archives of a source tree.

    Raises:
      BuildFailed: if a build fails, or the wheel does not hold what it must.
    """
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(made), str(source)],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch()), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        umask=umask,
    )
    if done.returncode:
        raise BuildFailed(f"The build failed:\n{done.stdout[-3000:]}")
    archives = sorted(made.iterdir())
    for path in archives:
        normalize(path, epoch())
        if path.suffix == ".whl":
            _check(path)
    return archives


def _check(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    missing = [name for name in NEEDED if f"{FOLDER}/{name}" not in names]
    lua = sorted(path.name for path in (ROOT / FOLDER / "store" / "lua").glob("*.lua"))
    missing += [name for name in lua if f"{FOLDER}/store/lua/{name}" not in names]
    pages = (ROOT / FOLDER / "web" / "templates").glob("*.html")
    missing += [path.name for path in pages if f"{FOLDER}/web/templates/{path.name}" not in names]
    folder = ROOT / FOLDER / "ruby" / "sidekiq-flow"
    gem = (path for part in ("lib", "web") for path in (folder / part).rglob("*") if path.is_file())
    missing += [str(path) for path in gem if path.relative_to(ROOT).as_posix() not in names]
    strange = [name for name in names if name.split("/")[0] != FOLDER and ".dist-info/" not in name]
    if missing or strange:
        raise BuildFailed(f"{wheel.name} lacks {missing}, and should not hold {strange}.")


def main() -> int:
    target = ROOT / "dist"
    with tempfile.TemporaryDirectory(prefix="dsf-build-") as folder:
        copy(Path(folder) / "source")
        try:
            archives = build(Path(folder) / "source", Path(folder) / "dist")
        except BuildFailed as e:
            print(e, file=sys.stderr)
            return 1
        target.mkdir(exist_ok=True)
        for path in archives:
            shutil.copy(path, target / path.name)
            print(f"{digest(path.read_bytes())}  dist/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
