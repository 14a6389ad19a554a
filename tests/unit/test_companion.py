"""The Ruby companion sends the very scripts that Python sends."""

from __future__ import annotations

from dramatiq_sidekiq_flow.store import scripts
from interop import companion


def test_its_lua_is_ours() -> None:
    text = companion.COMPANION.read_text("utf-8")
    held = companion.embedded(text)
    assert held == companion.sources(), "store/lua was changed: python -m interop.companion"
    # As one text, too: nothing stands between the scripts.
    assert text == companion.written(text)


def test_it_knows_them_by_the_same_sha() -> None:
    """What its ``Scripts`` puts together is what ours does."""
    held = companion.embedded(companion.COMPANION.read_text("utf-8"))
    ours = {script.name: script.source for script in scripts.ALL}
    for name, source in held.items():
        if name != "_plan":
            assert (held["_plan"] + source if name == "advance" else source) == ours[name]
