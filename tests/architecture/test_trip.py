"""The walker finds its way through a small package, and stays out where it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import source, trip

FILES = {
    "__init__.py": "",
    "top/__init__.py": "",
    "top/start.py": """
        from ..store import runs
        from ..store.box import Box, Door
        from ..wire.words import shout as loud

        class Start:
            box: Box

            def __init__(self, door: Door) -> None:
                self.door = door

            def go(self, message: "str", other: int) -> None:
                text = f"{message}!"
                loud(other)
                if other:
                    self._again(text)
                elif text:
                    raise ValueError(runs.never(message))
                self.door.push(message)
                for part in [each for each in text]:
                    runs.keep(part)

            def _again(self, text: str) -> None:
                self.box.put(1, text)
                loud(text)
                self._again(text)
        """,
    "store/__init__.py": "",
    "store/runs.py": """
        from ..wire.words import shout

        def keep(part):
            match part:
                case str() as found:
                    shout(found)
                    _kept(found)

        def _kept(found): ...
        def never(message): ...
        """,
    "store/box.py": """
        from typing import Protocol

        class Door(Protocol):
            def push(self, text: str) -> None: ...

        class WoodenDoor(Door):
            def push(self, text: str) -> None: ...

        class Box:
            def put(self, number: int, text: str) -> None:
                self._look(number)
                inner(number=number, text=text)

            def _look(self, number: int) -> None: ...

        def inner(number: int, text: str) -> None: ...
        """,
    "wire/__init__.py": "",
    "wire/words.py": "def shout(text): ...",
}
HEIGHTS = {"top": 2, "store": 1, "wire": 0}


def package(folder: Path, files: dict[str, str]) -> dict[str, source.Module]:
    root = folder / "package"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.splitlines()
        indented = all(line.startswith("        ") for line in lines if line)
        path.write_text("\n".join(line[8:] for line in lines) if indented else text, "utf-8")
    return source.read(root)


def walked(folder: Path, files: dict[str, str] = FILES) -> trip.Trip:
    return trip.follow(package(folder, files), HEIGHTS, "top/start.py:Start.go", "message")


def test_the_stops_are_in_the_order_of_the_code(tmp_path: Path) -> None:
    found = walked(tmp_path)
    assert [(stop.path, *stop.functions) for stop in found.stops] == [
        ("top/start.py", "Start.go", "Start._again"),
        ("store/box.py", "Box.put", "inner"),
        ("wire/words.py", "shout"),
        ("store/runs.py", "keep", "_kept"),
    ]
    assert found.files == ["top/start.py", "store/box.py", "wire/words.py", "store/runs.py"]
    assert found.climbs == 1


def test_a_method_that_a_subclass_overrides_is_not_entered(tmp_path: Path) -> None:
    more = "class Small(Box):\n    def put(self, number, text): ...\n"
    found = walked(tmp_path, {**FILES, "store/small.py": f"from .box import Box\n{more}"})
    assert "store/box.py" not in found.files


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.box.put(1, text)", "self.box.put(1, 2)"),
        ("box: Box", "box: object"),
        ("box: Box", "box: Box | Door"),
        ("from ..store.box import Box, Door", "from elsewhere import Box, Door"),
    ],
)
def test_what_gets_no_value_or_has_no_known_class_is_not_entered(tmp_path: Path, old: str, new: str) -> None:
    text = FILES["top/start.py"]
    assert old in text
    found = walked(tmp_path, {**FILES, "top/start.py": text.replace(old, new)})
    assert "store/box.py" not in found.files


@pytest.mark.parametrize(
    "given",
    [
        "made = Box()\n                    made.put(1, message)",
        "made: Box = other\n                    made.put(1, message)",
        "Box().put(1, **{'text': message})",
        "boxes().put(*message)",
        "with boxes() as made:\n                        made.put(number=1, text=message)",
        "[each.put(1, message) for each in many()]",
        "(box := Box()).put(1, message)",
    ],
)
def test_types_of_variables_are_followed(tmp_path: Path, given: str) -> None:
    text = FILES["top/start.py"].replace("self._again(text)", given, 1)
    text += "\n        def boxes() -> Box: ...\n        def many() -> list[Box]: ...\n"
    assert "store/box.py" in walked(tmp_path, {**FILES, "top/start.py": text}).files


def test_a_missing_entry_is_said(tmp_path: Path) -> None:
    modules = package(tmp_path, FILES)
    for entry in ("top/other.py:go", "top/start.py:Start.gone", "top/start.py:Start._again"):
        with pytest.raises(trip.MissingEntry, match="limits"):
            trip.follow(modules, HEIGHTS, entry, "message")


def test_layers_are_read_from_the_contract(tmp_path: Path) -> None:
    (tmp_path / "setup.cfg").write_text(
        "[importlinter:contract:layers]\nlayers =\n    (cli) : testing\n    broker | typed\n    wire\n", "utf-8"
    )
    assert source.layers(tmp_path / "setup.cfg") == {"cli": 2, "testing": 2, "broker": 1, "typed": 1, "wire": 0}
