"""Builds what the gem ``sidekiq-flow`` takes from the Python package, and the files to copy from the gem.

    make companion

It writes, in ``dramatiq_sidekiq_flow/ruby``:

* ``sidekiq-flow/lib/sidekiq_flow/version.rb``: the version of the Python package;
* ``sidekiq-flow/lib/sidekiq_flow/lua/*.lua``: the scripts, as Python sends them;
* ``sidekiq_flow_companion.rb`` and ``sidekiq_flow_registry.rb``: the gem in one file, for applications that copy it.

``tests/unit/test_companion.py`` fails when one of them is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dramatiq_sidekiq_flow import __version__
from dramatiq_sidekiq_flow.store import scripts

RUBY = Path(__file__).parent.parent / "dramatiq_sidekiq_flow" / "ruby"
GEM = RUBY / "sidekiq-flow"
LIB = GEM / "lib"
LUA = LIB / "sidekiq_flow" / "lua"
VERSION = LIB / "sidekiq_flow" / "version.rb"

#: The scripts that Ruby sends.
SCRIPTS = (
    "advance",
    "beat",
    "begin",
    "cancel",
    "extend",
    "fail",
    "fetch",
    "find_jobs",
    "park",
    "pause",
    "pour",
    "promote",
    "read_callbacks",
    "rearm",
    "recover",
    "replace",
    "requeue",
    "signal",
    "start",
    "store_callbacks",
    "trial",
    "unpark",
    "unpause",
)

#: Files to copy: the file of the gem that each is built from.
BUILT = {
    RUBY / "sidekiq_flow_companion.rb": LIB / "sidekiq_flow.rb",
    RUBY / "sidekiq_flow_registry.rb": LIB / "sidekiq_flow" / "registry.rb",
}

_MAGIC = "# frozen_string_literal: true\n"
_REQUIRE = re.compile(r'^require "([^"]+)"\n', re.MULTILINE)
_RELATIVE = re.compile(r'^require_relative "([^"]+)"\n', re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")

#: Takes the place of lua_files.rb, which reads a folder.
_LUA_IN_FILE = r"""module SidekiqFlow::Companion
  # The Lua scripts by name, read from behind the line that ends the Ruby of this file.
  LUA = File.read(__FILE__, encoding: "UTF-8")
    .split(/^__END__\n/, 2).last
    .split(/^-- @file (\w+)\.lua\n/).drop(1).each_slice(2).to_h.freeze
end
"""


def sources() -> dict[str, str]:
    """The scripts that Ruby sends, by name: the text that Python sends."""
    return {script.name: script.source for script in scripts.ALL if script.name in SCRIPTS}


def version_file() -> str:
    """The text of ``version.rb``."""
    return (
        f"{_MAGIC}\n# Built by `make companion` from the version of the Python package.\n"
        f'module SidekiqFlow\n  VERSION = "{__version__}"\nend\n'
    )


def single_file(entry: Path) -> str:
    """One Ruby file with all that a file of the gem requires of the gem."""
    files = dict(_required(entry))
    introduction, body = _introduction(files.pop(entry))
    bodies = {**files, entry: body}
    required = {name for text in bodies.values() for name in _REQUIRE.findall(text)}
    has_lua = any(path.name == "lua_files.rb" for path in bodies)
    parts = [
        _MAGIC,
        f"# Built by `make companion` from the gem sidekiq-flow {__version__}: change the gem, not this file.\n",
        introduction,
        "".join(f'require "{name}"\n' for name in sorted(required)),
        *(_own_lines(path, text) for path, text in bodies.items()),
    ]
    ruby = _BLANK_LINES.sub("\n\n", "\n".join(parts)).rstrip("\n") + "\n"
    return ruby + _lua_section() if has_lua else ruby


def _required(entry: Path) -> Iterator[tuple[Path, str]]:
    """The files of the gem that a file needs, each once, in the order of loading; the file itself is the last."""
    seen: set[Path] = set()

    def visit(path: Path) -> Iterator[tuple[Path, str]]:
        if path in seen:
            return
        seen.add(path)
        text = path.read_text("utf-8")
        for name in _RELATIVE.findall(text):
            yield from visit(path.parent / f"{name}.rb")
        yield path, text

    return visit(entry)


def _introduction(text: str) -> tuple[str, str]:
    """The comment at the head of a file, and the rest of it."""
    introduction, _, rest = text.removeprefix(_MAGIC).strip("\n").partition("\n\n")
    return introduction + "\n", rest + "\n"


def _own_lines(path: Path, text: str) -> str:
    """The Ruby of one file without its requires."""
    if path.name == "lua_files.rb":
        return _LUA_IN_FILE
    without = _RELATIVE.sub("", _REQUIRE.sub("", text.removeprefix(_MAGIC)))
    return without.strip("\n") + "\n"


def _lua_section() -> str:
    lua = "".join(f"-- @file {name}.lua\n{source}" for name, source in sources().items())
    return f"\n# The Lua scripts, the same text as in the Python package.\n__END__\n{lua}"


def wanted() -> dict[Path, str]:
    """All files that are built, with their text.

    The files to copy are built from the gem as it is on the disk: write the others first.
    """
    lua = {LUA / f"{name}.lua": source for name, source in sources().items()}
    return {VERSION: version_file(), **lua, **{path: single_file(entry) for path, entry in BUILT.items()}}


def out_of_date() -> list[Path]:
    """The files that differ from what would be built, and scripts that Ruby no longer sends."""
    files = wanted()
    differ = [path for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]
    return differ + [path for path in LUA.glob("*.lua") if path not in files]


def main() -> None:
    LUA.mkdir(exist_ok=True)
    VERSION.write_text(version_file(), "utf-8")
    files = wanted()
    changed = out_of_date()
    for path in changed:
        if path in files:
            path.write_text(files[path], "utf-8")
        else:
            path.unlink()
        print(path.relative_to(RUBY))
    if not changed:
        print("nothing to change")


if __name__ == "__main__":
    main()
