"""The examples of docs/typed-actors.md run as printed."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import redis

from ..redis_values import fields
from ..running import working

DOCS = Path(__file__).parents[2] / "docs" / "typed-actors.md"


def test_the_examples_run_as_printed(redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    text = DOCS.read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 8
    # Only where the server is differs.
    printed = 'url="redis://localhost:6379/0"'
    assert printed in blocks[0]
    module = types.ModuleType("printed")
    monkeypatch.setitem(sys.modules, "printed", module)
    for block in blocks:
        # Blank lines, so that a traceback has the line of the file.
        before = "\n" * text[: text.index(block)].count("\n")
        exec(compile(before + block.replace(printed, f'url="{redis_url}"'), str(DOCS), "exec"), module.__dict__)  # noqa: S102
    names: dict[str, Any] = module.__dict__
    try:
        with working(names["broker"]):
            names["broker"].join("python", timeout=20_000)
    finally:
        names["broker"].close()

    def memory(run_id: str) -> dict[str, Any]:
        return {name: json.loads(value) for name, value in fields(client.hgetall(f"swf:mem:{run_id}")).items()}

    assert client.zcard("dead") == client.zcard("retry") == 0
    assert memory(names["run_id"]) == {"text": "the text of 42", "words": 4, "verdict": "short"}
    assert memory(names["pages_run_id"]) == {"page1": 7, "page2": 14, "page3": 21, "page4": 28}
