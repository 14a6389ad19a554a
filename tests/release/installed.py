"""Install the built wheel in a clean environment, and run the README's example there.

Part of ``make dist``.  Nothing of the project's folder is on the path: what is
missing in the wheel fails here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from pathlib import Path

from dramatiq_sidekiq_flow.embedded import EmbeddedServer

from .build import ROOT

#: Where the README's example expects its server.
PRINTED = 'url="redis://localhost:6379/0"'
#: What the example's steps leave in the memory of its run.
EXPECTED = "3"
PATIENCE = 60.0

_FIELDS = """
import sys, redis
print(redis.Redis.from_url(sys.argv[1]).hlen("swf:mem:" + sys.argv[2]))
"""
_PROCESSES = """
import sys, redis
print(redis.Redis.from_url(sys.argv[1]).scard("processes"))
"""


class NotWorking(Exception):
    """The installed wheel did not do what the README says."""


def example(readme: str) -> str:
    """The README's example.

    Raises:
      NotWorking: if it is not there, or uses another server.
    """
    found = re.findall(r"```python\n(# app\.py\n.*?)```", readme, re.DOTALL)
    if len(found) != 1 or PRINTED not in found[0]:
        raise NotWorking(f"README.md needs one example that begins with '# app.py' and has {PRINTED}.")
    code: str = found[0]
    return code


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment with nothing but the wheel and what it needs; its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run((*pip, str(wheel)), check=True, timeout=300, cwd=folder, env=clean())
    return python


def clean() -> Mapping[str, str]:
    """The environment without what would bring the project's folder in."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(python: Path, code: str, folder: Path) -> None:
    """Run the example with one worker and a server of its own.

    Raises:
      NotWorking: if its run does not end with all outputs.
    """
    with EmbeddedServer() as server, (folder / "log").open("wb") as log:
        (folder / "app.py").write_text(code.replace(PRINTED, f'url="{server.url}"'), "utf-8")
        command = (str(python), "-m", "dramatiq", "app", "--processes", "1", "--path", str(folder))
        worker = subprocess.Popen(command, cwd=folder, env=clean(), stdout=log, stderr=log, start_new_session=True)
        try:
            _until(lambda: _said(python, folder, _PROCESSES, server.url) != "0", "the worker did not start", folder)
            run_id = _said(python, folder, "import runpy; runpy.run_path('app.py', run_name='__main__')")
            wanted = f"the run {run_id!r} did not end"
            _until(lambda: _said(python, folder, _FIELDS, server.url, run_id) == EXPECTED, wanted, folder)
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _said(python: Path, folder: Path, code: str, *arguments: str) -> str:
    done = subprocess.run(
        (str(python), "-c", code, *arguments), cwd=folder, env=clean(), capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise NotWorking(done.stderr[-3000:])
    return done.stdout.strip()


def _until(holds: object, problem: str, folder: Path) -> None:
    assert callable(holds)
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            log = (folder / "log").read_text("utf-8", "replace")
            raise NotWorking(f"After {PATIENCE:.0f} s {problem}:\n{log[-3000:]}")
        time.sleep(0.2)


def main() -> int:
    wheels = sorted((ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        print("There is no wheel in dist. Build it: make dist", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="dsf-installed-") as scratch:
        folder = Path(scratch)
        try:
            code = example((ROOT / "README.md").read_text("utf-8"))
            wheel = shutil.copy(wheels[-1], folder)
            python = install(Path(wheel), folder / "environment")
            run(python, code, folder)
        except NotWorking as e:
            print(f"The installed wheel does not work: {e}", file=sys.stderr)
            return 1
    print(f"works when installed: dist/{wheels[-1].name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
