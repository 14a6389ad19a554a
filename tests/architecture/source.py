"""The modules of a package, read as syntax trees: nothing of the package is imported."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import attrs

#: A name in a module: ``("store.runs", "advance")``.
Address = tuple[str, str]


@attrs.frozen
class Module:
    """One file of the package."""

    #: Dotted, without the package: ``store.runs``; empty for the package itself.
    name: str
    #: Relative to the package: ``store/runs.py``.
    path: str
    text: str
    tree: ast.Module
    #: Local name -> what is imported: a module and a name in it, or a module and "".
    imports: dict[str, Address] = attrs.field(factory=dict)

    @property
    def is_package(self) -> bool:
        return self.path.rsplit("/", 1)[-1] == "__init__.py"

    def definitions(self) -> Iterator[ast.stmt]:
        yield from self.tree.body


def read(root: Path) -> dict[str, Module]:
    """Read all modules of the package in a folder, by their dotted names.

    Raises:
      SyntaxError: if a file is not Python.
    """
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        text = path.read_text("utf-8")
        module = Module(".".join(parts), path.relative_to(root).as_posix(), text, ast.parse(text))
        modules[module.name] = module
    for module in modules.values():
        for statement in ast.walk(module.tree):
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                for local, address in _imported(statement, module, root.name, modules):
                    module.imports[local] = address
    return modules


def _imported(
    statement: ast.Import | ast.ImportFrom, module: Module, package: str, modules: dict[str, Module]
) -> Iterator[tuple[str, Address]]:
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            if alias.name.split(".")[0] == package and alias.asname:
                yield alias.asname, (alias.name[len(package) + 1 :], "")
        return
    source = origin(statement, module, package)
    if source is None:
        return
    for alias in statement.names:
        inner = f"{source}.{alias.name}" if source else alias.name
        yield alias.asname or alias.name, (inner, "") if inner in modules else (source, alias.name)


def origin(statement: ast.ImportFrom, module: Module, package: str) -> str | None:
    """The module of the package that a ``from ... import`` names; None for another package."""
    if not statement.level:
        names = (statement.module or "").split(".")
        return ".".join(names[1:]) if names[0] == package else None
    parts = module.name.split(".") if module.name else []
    above = statement.level - 1 if module.is_package else statement.level
    base = parts[: len(parts) - above]
    return ".".join([*base, *(statement.module or "").split(".")]).strip(".")


def layers(setup_cfg: Path) -> dict[str, int]:
    """The height of each folder or module at the top of the package: that of its layer in ``setup.cfg``."""
    config = configparser.ConfigParser()
    config.read(setup_cfg, "utf-8")
    lines = config.get("importlinter:contract:layers", "layers").split("\n")
    heights = {}
    for height, line in enumerate(reversed([line for line in lines if line.strip()])):
        for name in line.replace("|", ":").split(":"):
            heights[name.strip().strip("()")] = height
    return heights
