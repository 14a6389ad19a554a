"""Each measure finds what it is for in a small tree that breaks the rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import __main__, limits, page
from .measures import MEASURES, Measured

ROOT = Path(__file__).parent.parent.parent

COMPLETION = """
from ..wire.words import shout
class Completion:
    def advance(self, message):
        shout(message)
"""
BRANCHES = "".join(f"    if a == {n}:\n        return {n}\n" for n in range(12))
PAGE = f"""# Life of a job
In `wire/words.py`.
{page.BEGIN}

1. `workflow/completion.py`
2. `wire/words.py`

{page.END}
"""

SOUND = {
    "setup.cfg": "[importlinter:contract:layers]\nlayers =\n    workflow\n    wire\n",
    "docs/how-it-works.md": PAGE,
    "dramatiq_sidekiq_flow/__init__.py": "",
    "dramatiq_sidekiq_flow/store/__init__.py": "",
    "dramatiq_sidekiq_flow/wire/__init__.py": "",
    "dramatiq_sidekiq_flow/wire/words.py": "def shout(text):\n    return text\n",
    "dramatiq_sidekiq_flow/workflow/__init__.py": "",
    "dramatiq_sidekiq_flow/workflow/completion.py": COMPLETION,
}
WORDS = "dramatiq_sidekiq_flow/wire/words.py"

#: Measure, a file, its text, and the value then; ``SOUND`` gives 0.
BROKEN = [
    ("trip_page", "docs/how-it-works.md", PAGE.replace("2. `wire/words.py`", ""), 1),
    ("trip_page", "docs/how-it-works.md", PAGE.replace("2. `wire", "2. `wire/nodes.py`\n3. `wire"), 1),
    ("trip_page", "docs/how-it-works.md", PAGE.replace("1.", "3.").replace("wire/words.py`\n\n", "x.py`\n"), 2),
    ("page_files", "docs/how-it-works.md", PAGE.replace("In `wire/words.py`", "In `wire/gone.py`"), 1),
    ("cycles", WORDS, "from ..workflow import completion\ndef shout(text): ...\n", 2),
    (
        "cycles",
        WORDS,
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
        "    from dramatiq_sidekiq_flow.workflow.completion import Completion\n",
        2,
    ),
    ("replies", WORDS, "def shout(reply):\n    return reply[0] == b'DONE'\n", 1),
    ("replies", "dramatiq_sidekiq_flow/ruby/lib/unit.rb", 'settled if reply[0] == "DONE"\n', 1),
    ("replies", f"dramatiq_sidekiq_flow/ruby/{limits.BUILT_RUBY[0]}", 'settled if reply[0] == "DONE"\n', 1),
    ("rank_c", WORDS, f"def shout(a):\n{BRANCHES}", 1),
    ("rank_d", WORDS, f"def shout(a):\n{BRANCHES}{BRANCHES}", 1),
    ("wording", WORDS, "# This is no plan; Whoever reads it, there is no other.\n", 2),
    ("wording", "CHANGELOG.md", "They are no plans.\n", 1),
    ("wording", "dramatiq_sidekiq_flow/ruby/a.rb", "# Nobody\n", 1),
    ("wording", "dramatiq_sidekiq_flow/store/lua/a.lua", "-- somebody's\n", 1),
    ("long_modules", WORDS, "\n" * 351, 1),
    ("long_ruby", "dramatiq_sidekiq_flow/ruby/lib/fetch.rb", "\n" * 251, 1),
    ("names", "dramatiq_sidekiq_flow/store/words.py", "", 1),
]


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(("measure", "name", "text", "value"), BROKEN)
def test_a_broken_rule_is_found(tmp_path: Path, measure: str, name: str, text: str, value: int) -> None:
    assert MEASURES[measure](tree(tmp_path, SOUND)) == Measured(0)
    found = MEASURES[measure](tree(tmp_path, {name: text}))
    assert (found.value, len(found.places)) == (value, value)


def test_a_reply_may_be_read_in_the_store(tmp_path: Path) -> None:
    files = {"dramatiq_sidekiq_flow/store/runs.py": "def f(reply):\n    return reply[0]\n"}
    assert MEASURES["replies"](tree(tmp_path, {**SOUND, **files})) == Measured(0)


def test_the_built_ruby_file_may_be_long(tmp_path: Path) -> None:
    files = {f"dramatiq_sidekiq_flow/ruby/{limits.BUILT_RUBY[0]}": "\n" * 300}
    assert MEASURES["long_ruby"](tree(tmp_path, {**SOUND, **files})) == Measured(0)


def test_files_and_stops_are_counted(tmp_path: Path) -> None:
    root = tree(tmp_path, SOUND)
    assert MEASURES["trip_files"](root).value == MEASURES["trip_stops"](root).value == 2


def test_an_average_and_a_median_are_taken(tmp_path: Path) -> None:
    root = tree(tmp_path, SOUND)
    before = MEASURES["complexity"](root).value
    assert MEASURES["median"](root) == Measured(2)
    tree(root, {WORDS: f'def shout(a):\n    """Long.\n\n    Text."""\n\n    # why\n{BRANCHES}'})
    assert MEASURES["complexity"](root).value > before
    assert MEASURES["median"](root) == Measured((25 + 2) / 2)


def test_an_unused_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits.USED, "users", ("advance", "Completion"))
    root = tree(tmp_path, SOUND)
    assert MEASURES["unused"](root) == Measured(0)
    tree(root, {WORDS: "def shout(): ...\ndef whisper(): ...\n"})
    assert MEASURES["unused"](root).places == ("words.py:2 whisper",)


def test_each_measure_has_a_limit() -> None:
    assert MEASURES.keys() == limits.LIMITS.keys()


def test_a_value_over_its_limit_fails_and_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path, SOUND)
    monkeypatch.setitem(limits.LIMITS, "median", limits.Limit("median", 6, 6))
    monkeypatch.setitem(limits.USED, "users", ("advance", "Completion"))
    arguments = ["--root", str(root)]
    assert __main__.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "FAILS" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    monkeypatch.setitem(limits.LIMITS, "trip_files", limits.Limit("files of the trip", 1, 1))
    assert __main__.main(arguments) == 1
    assert "FAILS\n" in (printed := capsys.readouterr().out)
    assert "  wire/words.py" in printed
    monkeypatch.setitem(limits.LIMITS, "trip_files", limits.Limit("files of the trip", 9, 9, least=3))
    assert __main__.main(arguments) == 1


def test_the_list_on_the_page_is_written_anew(tmp_path: Path) -> None:
    text = PAGE.replace("1. `workflow/completion.py`\n", "")
    root = tree(tmp_path, {**SOUND, limits.TRIP_PAGE: text})
    assert MEASURES["trip_page"](root).value == 1
    assert __main__.main(["--root", str(root), "--write"]) == 0
    assert (root / limits.TRIP_PAGE).read_text("utf-8") == PAGE
