"""The examples of docs/web-ui.md run as printed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import redis

from .processes import ROOT


def test_the_examples_run_as_printed(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "web-ui.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 5
    # Only where the server is differs.
    code = "".join(blocks).replace("redis://localhost:6379/0", redis_url)
    code = code.replace("import dramatiq\n", "import dramatiq\ndramatiq.set_broker(broker)\n", 1)
    (tmp_path / "app.py").write_text(f"jid = {'0' * 24!r}\n{code}", "utf-8")
    names: dict[str, Any] = runpy.run_path(str(tmp_path / "app.py"))
    assert names["broker"].process.presence.process_info.tag == "shop"
    assert names["export"].actor_name in names["broker"].cancellable
    assert client.hexists(f"it-{'0' * 24}", "cancelled")
    assert not client.exists("paused")
    names["broker"].close()
