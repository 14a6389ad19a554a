"""Writes the Lua scripts into the Ruby companion, which must work as one file.

    python -m interop.companion

Run it after a change of ``store/lua``; ``tests/unit/test_companion.py`` says when it was forgotten.
"""

from __future__ import annotations

import re
from pathlib import Path

from dramatiq_sidekiq_flow.store import scripts

PACKAGE = Path(__file__).parent.parent / "dramatiq_sidekiq_flow"
COMPANION = PACKAGE / "ruby" / "sidekiq_flow_companion.rb"

#: The scripts that the companion sends; it starts no runs.
SCRIPTS = (
    "advance",
    "beat",
    "begin",
    "extend",
    "fail",
    "fetch",
    "pour",
    "promote",
    "read_callbacks",
    "recover",
    "requeue",
    "stage",
    "store_callbacks",
    "trial",
)

_END = "\n__END__\n"
_HEAD = re.compile(r"^-- @file (\w+)\.lua\n", re.MULTILINE)


def ruby(text: str) -> str:
    """The Ruby of the companion, up to the line that ends it."""
    return text.partition(_END)[0] + _END


def embedded(text: str) -> dict[str, str]:
    """The Lua that the companion holds, by name."""
    parts = _HEAD.split(text.partition(_END)[2])
    return dict(zip(parts[1::2], parts[2::2]))


def sources() -> dict[str, str]:
    """The Lua that it must hold: each script as Python sends it."""
    return {script.name: script.source for script in scripts.ALL if script.name in SCRIPTS}


def written(text: str) -> str:
    """The companion with the Lua that it must hold."""
    return ruby(text) + "".join(f"-- @file {name}.lua\n{lua}" for name, lua in sources().items())


def main() -> None:
    before = COMPANION.read_text("utf-8")
    after = written(before)
    COMPANION.write_text(after, "utf-8")
    print("changed" if after != before else "nothing to change")


if __name__ == "__main__":
    main()
