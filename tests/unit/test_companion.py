"""The Ruby companion sends the very scripts that Python sends."""

from __future__ import annotations

import hashlib

from dramatiq_sidekiq_flow.store import scripts
from interop import companion


def test_its_lua_is_ours() -> None:
    text = companion.COMPANION.read_text("utf-8")
    held = companion.embedded(text)
    assert held == companion.sources(), "store/lua was changed: python -m interop.companion"
    # As one text, too: nothing stands between the scripts.
    assert text == companion.written(text)


def test_it_knows_them_by_the_same_sha() -> None:
    """Its ``Scripts`` hashes each text as it is."""
    held = companion.embedded(companion.COMPANION.read_text("utf-8"))
    ours = {script.name: script.sha for script in scripts.ALL if script.name in companion.SCRIPTS}
    hashed = {name: hashlib.sha1(source.encode()).hexdigest() for name, source in held.items()}  # noqa: S324
    assert hashed == ours
