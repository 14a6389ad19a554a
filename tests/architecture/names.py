"""What names in a module mean: its functions, its classes, and the types of its values."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Union

import attrs

from .source import Address, Module

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]
PROTOCOLS = ("Protocol", "ABC")


@attrs.frozen
class Type:
    """A class of the package, or a container of its values."""

    address: Address
    of: bool = False


@attrs.frozen
class Target:
    """A function that a call enters, with the class that defines it."""

    module: Module
    node: Function
    owner: ast.ClassDef | None = None

    @property
    def name(self) -> str:
        return f"{self.owner.name}.{self.node.name}" if self.owner else self.node.name

    @property
    def static(self) -> bool:
        return any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in self.node.decorator_list)


class Index:
    """Finds classes, functions and types by the names that a module uses."""

    def __init__(self, modules: dict[str, Module]) -> None:
        self.modules = modules
        self.classes: dict[Address, ast.ClassDef] = {}
        self.functions: dict[Address, Function] = {}
        for module in modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef):
                    self.classes[module.name, node.name] = node
            for statement in module.definitions():
                if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    self.functions[module.name, statement.name] = statement
        self.children: dict[Address, list[Address]] = {}
        for address in self.classes:
            for base in self.bases(address):
                self.children.setdefault(base, []).append(address)

    def address(self, module: Module, name: str) -> Address:
        """Where a name that a module uses is defined; follows names that are imported twice."""
        found = module.name, name
        seen: set[Address] = set()
        while found not in seen and found[0] in self.modules:
            seen.add(found)
            if found in self.classes or found in self.functions:
                break
            found = self.modules[found[0]].imports.get(found[1], found)
        return found

    def resolve(self, module: Module, node: ast.expr) -> Address | None:
        """Where a name, or a name in an imported module, is defined."""
        if isinstance(node, ast.Name):
            return self.address(module, node.id)
        if isinstance(node, ast.Attribute):
            outer = self.resolve(module, node.value)
            if outer is not None and outer[1] == "" and outer[0] in self.modules:
                return self.address(self.modules[outer[0]], node.attr)
        return None

    def bases(self, address: Address) -> list[Address]:
        module, node = self.modules[address[0]], self.classes[address]
        found = [self.resolve(module, _unsubscripted(base)) for base in node.bases]
        return [base for base in found if base in self.classes]

    def lineage(self, address: Address) -> Iterator[Address]:
        """A class and those that it inherits from, within the package."""
        yield address
        for base in self.bases(address):
            yield from self.lineage(base)

    def method(self, address: Address, name: str) -> Target | None:
        for each in self.lineage(address):
            node = _method(self.classes[each], name)
            if node is not None:
                return Target(self.modules[each[0]], node, self.classes[each])
        return None

    def is_open(self, address: Address, name: str) -> bool:
        """Whether a method has no body to read, or more than one, by its name alone."""
        if self._definitions(name) > 1:
            return True
        for each in self.lineage(address):
            node = self.classes[each]
            if _method(node, name) is None:
                continue
            bases = [_last_name(base) for base in node.bases]
            return any(base in PROTOCOLS for base in bases) or self._overridden(each, name)
        return False

    def _definitions(self, name: str) -> int:
        """How many classes define a method of a name."""
        return sum(_method(node, name) is not None for node in self.classes.values())

    def _overridden(self, address: Address, name: str) -> bool:
        for child in self.children.get(address, []):
            if _method(self.classes[child], name) is not None or self._overridden(child, name):
                return True
        return False

    def annotated(self, module: Module, annotation: ast.expr | None) -> Type | None:
        """The one class of the package that an annotation names; None for several."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        if annotation is None:
            return None
        if isinstance(annotation, ast.BinOp):
            found = [self.annotated(module, side) for side in (annotation.left, annotation.right)]
            known = [each for each in found if each is not None]
            return known[0] if len(known) == 1 else None
        if isinstance(annotation, ast.Subscript):
            return self._generic(module, annotation)
        address = self.resolve(module, annotation)
        return Type(address) if address in self.classes else None

    def _generic(self, module: Module, annotation: ast.Subscript) -> Type | None:
        own = self.annotated(module, annotation.value)
        if own is not None:
            return own
        inner = annotation.slice
        arguments = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        name = _last_name(annotation.value)
        if name in ("dict", "Mapping", "MutableMapping", "defaultdict"):
            arguments = arguments[-1:]
        found = [self.annotated(module, each) for each in arguments]
        known = [each for each in found if each is not None]
        if len(known) != 1:
            return None
        if name in ("Optional", "Final", "ClassVar", "Annotated", "type", "Type"):
            return known[0]
        if name == "Callable":
            return None
        return Type(known[0].address, of=True)

    def attribute(self, address: Address, name: str) -> Type | None:
        """The type of an attribute, or of what a property gives."""
        for each in self.lineage(address):
            module, node = self.modules[each[0]], self.classes[each]
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and _is_name(statement.target, name):
                    return self.annotated(module, statement.annotation)
            method = _method(node, name)
            if method is not None:
                return self.annotated(module, method.returns)
            found = self._assigned(module, node, name)
            if found is not None:
                return found
        return None

    def _assigned(self, module: Module, node: ast.ClassDef, name: str) -> Type | None:
        """The type of ``self.name = value`` in a class: that of its annotation, parameter or class."""
        for function in node.body:
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for statement in ast.walk(function):
                if isinstance(statement, ast.AnnAssign) and _is_own(statement.target, name):
                    return self.annotated(module, statement.annotation)
                if isinstance(statement, ast.Assign) and any(_is_own(each, name) for each in statement.targets):
                    found = Scope(self, module, node, function).type(statement.value)
                    if found is not None:
                        return found
        return None


class Scope:
    """What is known of the names in one function."""

    def __init__(self, index: Index, module: Module, owner: ast.ClassDef | None, node: Function) -> None:
        self.index = index
        self.module = module
        self.owner = owner
        self.types: dict[str, Type | None] = {}
        self.carried: set[str] = set()
        for argument in parameters(node):
            self.types[argument.arg] = index.annotated(module, argument.annotation)
        if owner is not None and node.args.args:
            self.types[node.args.args[0].arg] = Type((module.name, owner.name))

    # -- types ------------------------------------------------------------------

    def type(self, node: ast.expr) -> Type | None:
        if isinstance(node, ast.Name):
            return self.types.get(node.id)
        if isinstance(node, ast.Attribute):
            outer = self.type(node.value)
            if outer is not None and not outer.of:
                return self.index.attribute(outer.address, node.attr)
            return None
        if isinstance(node, ast.Call):
            return self._result(node)
        if isinstance(node, ast.Subscript):
            outer = self.type(node.value)
            return Type(outer.address) if outer is not None and outer.of else None
        if isinstance(node, (ast.IfExp, ast.BoolOp)):
            sides = [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values
            return next((found for found in map(self.type, sides) if found is not None), None)
        if isinstance(node, (ast.Await, ast.NamedExpr)):
            return self.type(node.value)
        return None

    def _result(self, call: ast.Call) -> Type | None:
        address = self.class_of(call)
        if address is not None:
            return Type(address)
        target = self.target(call, any_method=True)
        if target is None:
            return None
        if _last_name(target.node.returns) == "Self" and isinstance(call.func, ast.Attribute):
            return self.type(call.func.value)
        return self.index.annotated(target.module, target.node.returns)

    # -- calls ------------------------------------------------------------------

    def class_of(self, call: ast.Call) -> Address | None:
        """The class that a call makes an instance of."""
        if isinstance(call.func, ast.Name) and call.func.id in self.types:
            return None
        address = self.index.resolve(self.module, call.func)
        return address if address in self.index.classes else None

    def target(self, call: ast.Call, *, any_method: bool = False) -> Target | None:
        """The function that a call enters; None where a reader need not enter it."""
        address = self.class_of(call)
        if address is not None:
            return self.index.method(address, "__init__")
        function = call.func
        if not (isinstance(function, ast.Name) and function.id in self.types):
            address = self.index.resolve(self.module, function)
            if address in self.index.functions:
                assert address is not None
                return Target(self.index.modules[address[0]], self.index.functions[address])
        if not isinstance(function, ast.Attribute):
            return None
        receiver = self._receiver(function.value)
        if receiver is None:
            return None
        if not any_method and self.index.is_open(receiver, function.attr):
            return None
        return self.index.method(receiver, function.attr)

    def _receiver(self, node: ast.expr) -> Address | None:
        if isinstance(node, ast.Call) and _is_name(node.func, "super") and self.owner is not None:
            return next(iter(self.index.bases((self.module.name, self.owner.name))), None)
        found = self.type(node)
        if found is not None:
            return None if found.of else found.address
        if isinstance(node, ast.Name) and node.id in self.types:
            return None
        address = self.index.resolve(self.module, node)
        return address if address in self.index.classes else None

    # -- values -----------------------------------------------------------------

    def carries(self, node: ast.AST | None) -> bool:
        """Whether an expression has the value in it, or one made from it."""
        if node is None:
            return False
        return any(isinstance(each, ast.Name) and each.id in self.carried for each in ast.walk(node))

    def bind(self, target: ast.expr, value: ast.expr, *, each: bool = False) -> None:
        """Remember what an assignment says of its names; ``each``: they are the items of the value."""
        carried, known = self.carries(value), self.type(value)
        if each and known is not None:
            known = Type(known.address) if known.of else None
        if not each and _pairs(target, value):
            for one, other in _pairs(target, value):
                self.bind(one, other)
            return
        names = [name.id for name in ast.walk(target) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
        for name in names:
            if known is not None or name not in self.types:
                self.types[name] = known if isinstance(target, ast.Name) else None
            if carried:
                self.carried.add(name)


def parameters(node: Function) -> list[ast.arg]:
    """All parameters of a function, with ``*args`` and ``**kwargs``."""
    arguments = node.args
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return found + [each for each in (arguments.vararg, arguments.kwarg) if each is not None]


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """The names and values of ``a, b = c, d``."""
    if not isinstance(target, (ast.Tuple, ast.List)) or not isinstance(value, ast.Tuple):
        return []
    if len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts))
    return []


def _method(node: ast.ClassDef, name: str) -> Function | None:
    for statement in node.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.name == name:
            return statement
    return None


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_own(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == name and _is_name(node.value, "self")


def _last_name(node: ast.expr | None) -> str:
    node = _unsubscripted(node) if node is not None else None
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _unsubscripted(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Subscript) else node
