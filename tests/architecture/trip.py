"""The trip of a value: the files that a reader enters who follows it through the calls.

The walk begins at one parameter of one function.  In the order in which the
code is written, each call is followed that passes on the value, or a value made
from it: through functions of modules, imported names, methods of ``self``, and
methods of values with an annotated type.  Each function is entered once.

A reader need not enter a method of a Protocol, an abstract method, one that a
subclass overrides, or one whose name several classes define: looking the name up
does not lead to one place, and the signature says enough.  The same holds for properties and for classes without an
``__init__`` of their own, which read like fields, and for the making of an
error that is raised.

It follows each branch, so it measures what a reader must hold, not what runs.
"""

from __future__ import annotations

import ast

import attrs

from .names import Index, Scope, Target, parameters
from .source import Module


@attrs.frozen
class Entry:
    """One function that was entered."""

    path: str
    function: str


@attrs.frozen
class Stop:
    """A stay in one file: the functions entered there before another file was."""

    path: str
    functions: tuple[str, ...]


@attrs.frozen
class Trip:
    """All stops, in order."""

    stops: tuple[Stop, ...]
    climbs: int

    @property
    def files(self) -> list[str]:
        """The files in the order of their first stop."""
        return list(dict.fromkeys(stop.path for stop in self.stops))


class MissingEntry(Exception):
    """The function at which a trip begins does not exist."""


class Walk:
    """Enters the functions that a value is passed to."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.entries: list[Entry] = []
        self._entered: set[int] = set()

    def enter(self, target: Target, carried: set[str]) -> None:
        if id(target.node) in self._entered:
            return
        self._entered.add(id(target.node))
        self.entries.append(Entry(target.module.path, target.name))
        scope = Scope(self.index, target.module, target.owner, target.node)
        scope.carried |= carried
        for statement in target.node.body:
            self._visit(statement, scope)

    def _visit(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for statement in node.body:
                self._visit(statement, scope)
            return
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            for generator in node.generators:
                self._visit(generator.iter, scope)
                scope.bind(generator.target, generator.iter, each=True)
        if isinstance(node, (ast.For, ast.AsyncFor)):
            self._visit(node.iter, scope)
            scope.bind(node.target, node.iter, each=True)
        if isinstance(node, ast.Match):
            self._visit(node.subject, scope)
            self._captures(node, scope)
        if isinstance(node, ast.Raise):
            return
        for child in _in_order(node):
            self._visit(child, scope)
        self._after(node, scope)

    def _captures(self, node: ast.Match, scope: Scope) -> None:
        if scope.carries(node.subject):
            for each in ast.walk(node):
                if isinstance(each, (ast.MatchAs, ast.MatchStar)) and each.name:
                    scope.types.setdefault(each.name, None)
                    scope.carried.add(each.name)

    def _after(self, node: ast.AST, scope: Scope) -> None:
        """Bind the names of a statement, or follow a call, once its parts were visited."""
        if isinstance(node, ast.Call):
            self._call(node, scope)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                scope.bind(target, node.value)
        elif isinstance(node, (ast.AugAssign, ast.NamedExpr)):
            scope.bind(node.target, node.value)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            scope.bind(node.optional_vars, node.context_expr)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                scope.bind(node.target, node.value)
            if isinstance(node.target, ast.Name):
                scope.types[node.target.id] = self.index.annotated(scope.module, node.annotation)

    def _call(self, call: ast.Call, scope: Scope) -> None:
        target = scope.target(call)
        if target is None:
            return
        carried = _passed(call, scope, target)
        if carried:
            self.enter(target, carried)


def follow(modules: dict[str, Module], heights: dict[str, int], entry: str, parameter: str) -> Trip:
    """Follow a parameter from ``path.py:Class.function``.

    Raises:
      MissingEntry: if the function, or its parameter, does not exist.
    """
    index = Index(modules)
    path, _, name = entry.partition(":")
    module = next((each for each in modules.values() if each.path == path), None)
    target = _defined(index, module, name) if module is not None else None
    if target is None or parameter not in [argument.arg for argument in parameters(target.node)]:
        raise MissingEntry(f"{entry} with a parameter {parameter!r} does not exist. Mend the entry in limits.py.")
    walk = Walk(index)
    walk.enter(target, {parameter})
    return _trip(walk.entries, heights)


def _defined(index: Index, module: Module, name: str) -> Target | None:
    owner, _, function = name.rpartition(".")
    if owner:
        return index.method((module.name, owner), function) if (module.name, owner) in index.classes else None
    node = index.functions.get((module.name, function))
    return Target(module, node) if node is not None else None


def _trip(entries: list[Entry], heights: dict[str, int]) -> Trip:
    stops: list[Stop] = []
    climbs = 0
    for entry in entries:
        if stops and stops[-1].path == entry.path:
            stops[-1] = Stop(entry.path, (*stops[-1].functions, entry.function))
            continue
        if stops and _height(entry.path, heights) > _height(stops[-1].path, heights):
            climbs += 1
        stops.append(Stop(entry.path, (entry.function,)))
    return Trip(tuple(stops), climbs)


def _height(path: str, heights: dict[str, int]) -> int:
    return heights.get(path.split("/")[0].removesuffix(".py"), 0)


def _passed(call: ast.Call, scope: Scope, target: Target) -> set[str]:
    """The parameters of a function that get the value from a call."""
    arguments = target.node.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
    carried = set()
    if target.owner is not None and not target.static:
        own, names = names[:1], names[1:]
        if isinstance(call.func, ast.Attribute) and scope.carries(call.func.value):
            carried.update(own)
    for position, argument in enumerate(call.args):
        if not scope.carries(argument):
            continue
        if isinstance(argument, ast.Starred):
            carried.update(names[position:])
        elif position < len(names):
            carried.add(names[position])
        if arguments.vararg is not None and (position >= len(names) or isinstance(argument, ast.Starred)):
            carried.add(arguments.vararg.arg)
    keywords = names + [each.arg for each in arguments.kwonlyargs]
    for keyword in call.keywords:
        if not scope.carries(keyword.value):
            continue
        if keyword.arg is None:
            carried.update(keywords)
        elif keyword.arg in keywords:
            carried.add(keyword.arg)
        elif arguments.kwarg is not None:
            carried.add(arguments.kwarg.arg)
    return carried


def _in_order(node: ast.AST) -> list[ast.AST]:
    """The parts of a node that were not visited yet, as they are written."""
    if isinstance(node, (ast.For, ast.AsyncFor)):
        return [*node.body, *node.orelse]
    if isinstance(node, ast.Match):
        return list(node.cases)
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
        return [*_conditions(node.generators), node.elt]
    if isinstance(node, ast.DictComp):
        return [*_conditions(node.generators), node.key, node.value]
    return list(ast.iter_child_nodes(node))


def _conditions(generators: list[ast.comprehension]) -> list[ast.AST]:
    return [condition for generator in generators for condition in generator.ifs]
