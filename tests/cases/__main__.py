"""Run the scripts of this folder, six at a time, each with a Redis server of its own.

``python -m tests.cases [PART OF A NAME ...]``; exits with 1 if one does not pass.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

#: Seconds for one script.
LIMIT = 180

#: Scripts that run at a time: they sleep for nine tenths of it.
JOBS = 6

#: How many lines a failed one shows of what it printed.
LINES = 30


def main(parts: list[str]) -> int:
    scripts = sorted(path for path in HERE.glob("[0-9]*.py") if not parts or any(part in path.name for part in parts))
    if not scripts:
        raise SystemExit(f"No script of {HERE} has {' or '.join(parts)} in its name.")
    with ThreadPoolExecutor(JOBS) as pool:
        failed = [path.stem for path, passed in zip(scripts, pool.map(run, scripts)) if not passed]
    print(f"{len(scripts) - len(failed)} of {len(scripts)} pass" + "".join(f"\n  failed: {name}" for name in failed))
    return bool(failed)


def run(script: Path) -> bool:
    """Run one script and print how it ended."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="case-") as folder, server(folder) as url:
        environment = {**os.environ, "REDIS_URL": url, "TMPDIR": folder, "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), folder))
        log = Path(folder, "output")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(script)],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | str = process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                code = f"not within {LIMIT} s"
            finally:
                # Also what it has started and left.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        lines = log.read_text("utf-8", "replace").splitlines()
    passed = code == 0 and any(line.startswith("PASS") for line in lines)
    text = f"{'PASS' if passed else 'FAIL'}  {script.stem} ({time.monotonic() - began:.0f} s)"
    if not passed:
        shown = [f"      {line:.300}" for line in lines[-LINES:]]
        text = "\n".join((f"{text}, exit code {code}", *shown))
    print(text, flush=True)
    return passed


@contextlib.contextmanager
def server(folder: str) -> Iterator[str]:
    """The URL of a new redis-server."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                redis.Redis(port=port).ping()
                break
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
