"""What is measured, and where it was found.

A measure takes the folder of the project and gives a :class:`Measured`: a number,
and the lines that say where it comes from.
"""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs
from radon.complexity import add_inner_blocks, cc_rank, cc_visit
from vulture import Vulture

from . import limits, page, source, trip


@attrs.frozen
class Measured:
    """A value, and where it was found."""

    value: float
    places: tuple[str, ...] = ()

    @classmethod
    def count(cls, places: Iterable[str]) -> Measured:
        found = tuple(places)
        return cls(len(found), found)


def package(root: Path) -> Path:
    return root / limits.PACKAGE


# -- the trip of a finished job ---------------------------------------------------


def finished_job(root: Path) -> trip.Trip:
    """The trip of a finished job.

    Raises:
      MissingEntry: if it begins elsewhere by now.
    """
    modules, heights = source.read(package(root)), source.layers(root / "setup.cfg")
    return trip.follow(modules, heights, limits.TRIP_ENTRY, limits.TRIP_PARAMETER)


def trip_files(root: Path) -> Measured:
    return Measured.count(finished_job(root).files)


def trip_stops(root: Path) -> Measured:
    found = finished_job(root)
    stops = [f"{stop.path}: {', '.join(stop.functions)}" for stop in found.stops]
    return Measured(len(stops), (*stops, f"{found.climbs} climbs to a higher layer"))


def trip_page(root: Path) -> Measured:
    """The lines by which the list on the page and the trip differ."""
    listed = page.listed((root / limits.TRIP_PAGE).read_text("utf-8"))
    files = finished_job(root).files
    lacking = [f"not listed: {name}" for name in files if name not in listed]
    strange = [f"not of the trip: {name}" for name in listed if name not in files]
    if not lacking and not strange and listed != files:
        strange = ["in another order"]
    return Measured.count((*lacking, *strange))


def page_files(root: Path) -> Measured:
    named = page.named((root / limits.TRIP_PAGE).read_text("utf-8"))
    return Measured.count(name for name in named if not (package(root) / name).exists())


# -- modules ----------------------------------------------------------------------


def cycles(root: Path) -> Measured:
    """The modules that import each other, in a ring of any length."""
    modules = source.read(package(root))
    imports = {name: set(_imports(module, modules)) for name, module in modules.items()}
    reached = {name: _reached(name, imports) for name in imports}
    return Measured.count(modules[name].path for name in sorted(imports) if name in reached[name])


def _imports(module: source.Module, modules: dict[str, source.Module]) -> Iterator[str]:
    for statement in ast.walk(module.tree):
        if isinstance(statement, ast.ImportFrom):
            base = source.origin(statement, module, limits.PACKAGE)
            for alias in statement.names if base is not None else ():
                inner = f"{base}.{alias.name}".strip(".")
                name = inner if inner in modules else base
                # The package itself imports late what it exports.
                if name and name in modules:
                    yield name


def _reached(start: str, imports: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = [start]
    while ahead:
        for name in imports[ahead.pop()] - reached:
            reached.add(name)
            ahead.append(name)
    return reached


def replies(root: Path) -> Measured:
    """Replies of scripts that are read by index outside ``store/``, in Python and in Ruby."""
    code = [path for path in package(root).rglob("*") if path.suffix in (".py", ".rb")]
    above = sorted(path for path in code if package(root) / "store" not in path.parents)
    return Measured.count(_lines(package(root), above, r"\breply\[0\]"))


def long_modules(root: Path) -> Measured:
    return Measured.count(_longer(package(root).rglob("*.py"), limits.LONGEST_MODULE))


def long_ruby(root: Path) -> Measured:
    written = [path for path in package(root).rglob("*.rb") if path.name not in limits.BUILT_RUBY]
    return Measured.count(_longer(written, limits.LONGEST_RUBY))


def _longer(paths: Iterable[Path], most: int) -> Iterator[str]:
    for path in sorted(paths):
        lines = len(path.read_text("utf-8").splitlines())
        if lines > most:
            yield f"{path.name}: {lines} lines"


def names(root: Path) -> Measured:
    """Names of files that another file of the package has, too."""
    found: dict[str, list[str]] = {}
    for path in sorted(package(root).rglob("*.py")):
        if path.name not in ("__init__.py", "__main__.py"):
            found.setdefault(path.name, []).append(path.relative_to(package(root)).as_posix())
    return Measured.count(" and ".join(paths) for paths in found.values() if len(paths) > 1)


# -- functions --------------------------------------------------------------------


def _blocks(root: Path) -> Iterator[tuple[str, int]]:
    """Each class, method and function, with radon's complexity, as ``radon cc`` counts them."""
    for path in sorted(package(root).rglob("*.py")):
        for block in add_inner_blocks(cc_visit(path.read_text("utf-8"))):
            yield f"{path.relative_to(package(root)).as_posix()}:{block.lineno} {block.fullname}", block.complexity


def complexity(root: Path) -> Measured:
    blocks = [value for _, value in _blocks(root)]
    return Measured(round(statistics.mean(blocks), 3) if blocks else 0)


def _ranked(root: Path, ranks: str) -> Measured:
    found = [(name, value) for name, value in _blocks(root) if cc_rank(value) in ranks]
    return Measured.count(f"{name}: {value}" for name, value in sorted(found, key=lambda each: -each[1]))


def rank_d(root: Path) -> Measured:
    return _ranked(root, "DEF")


def rank_c(root: Path) -> Measured:
    return _ranked(root, "C")


def median(root: Path) -> Measured:
    """The median of the lines of functions, without docstrings, comments and empty lines."""
    lengths = []
    for module in source.read(package(root)).values():
        lines = module.text.splitlines()
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lengths.append(_length(node, lines))
    return Measured(statistics.median(lengths) if lengths else 0)


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    first = node.body[1:] if ast.get_docstring(node) is not None else node.body
    body = lines[first[0].lineno - 1 : node.end_lineno] if first else []
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    return len([line for line in (*head, *body) if line.strip() and not line.strip().startswith("#")])


# -- words ------------------------------------------------------------------------

WORDS = r"(?<!there )\b(?:is|are) no\b|\b(?:whoever|somebody|nobody|everybody)\b"


def wording(root: Path) -> Measured:
    """Words that make a sentence hard to read, in the package and in what is written about it."""
    code = [path for path in package(root).rglob("*") if path.suffix in (".py", ".lua", ".rb")]
    about = [*(root / "docs").glob("*.md"), *root.glob("*.md")]
    return Measured.count(_lines(root, sorted([*code, *about]), WORDS))


def _lines(root: Path, paths: Iterable[Path], pattern: str) -> Iterator[str]:
    """Each match in some files, with its line."""
    for path in paths:
        text = path.read_text("utf-8")
        for match in re.finditer(pattern, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{path.relative_to(root).as_posix()}:{line}: {match[0]}"


def unused(root: Path) -> Measured:
    used = [name for names in limits.USED.values() for name in names]
    vulture = Vulture(ignore_names=used)
    vulture.scavenge([str(package(root))])
    found = vulture.get_unused_code(min_confidence=60)
    return Measured.count(f"{Path(each.filename).name}:{each.first_lineno} {each.name}" for each in found)


MEASURES: dict[str, Callable[[Path], Measured]] = {
    measure.__name__: measure
    for measure in (
        trip_files,
        trip_stops,
        trip_page,
        page_files,
        cycles,
        replies,
        complexity,
        rank_d,
        rank_c,
        median,
        wording,
        long_modules,
        long_ruby,
        names,
        unused,
    )
}
