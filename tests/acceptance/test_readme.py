"""The README's example runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import redis

from ..running import eventually
from .processes import ROOT, registered, workers


def test_the_example_runs_as_printed(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(# app\.py\n.*?)```", readme, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    # Only where the server is differs.
    printed = 'url="redis://localhost:6379/0"'
    assert printed in code
    (tmp_path / "app.py").write_text(code.replace(printed, f'url="{redis_url}"'), "utf-8")
    with workers(redis_url, tmp_path / "log", count=0, module="app") as at_work:
        at_work.command += ["--path", str(tmp_path), "--queues", "python"]
        at_work.start()
        registered(client, 1)
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
        )
        run_id = done.stdout.strip()
        key = f"swf:mem:{run_id}"
        eventually(lambda: client.hlen(key) == 3)
    assert client.hgetall(key) == {b"text": b'"the text of 42"', b"words": b"4", b"letters": b"14"}
