"""What is wrong with a value, and where: ``items[2].price: expected float, got str '1'``."""

from __future__ import annotations

import reprlib
import typing
from collections.abc import Iterable
from typing import Any

import attrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

#: A path below the value (``.items[2].price``; empty for the value itself), and what is wrong there.
Problem = tuple[str, str]

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


class Mismatch(ValueError):
    """A value that does not fit its type."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    @classmethod
    def of(cls, expected: str, value: Any) -> Mismatch:
        """A value of the wrong type as a whole."""
        got = "None" if value is None else f"{type(value).__name__} {_repr.repr(value)}"
        return cls([("", f"expected {expected}, got {got}")])


def key(name: Any) -> str:
    """One key as a part of a path."""
    return f".{name}" if isinstance(name, str) and name.isidentifier() else f"[{name!r}]"


def below(part: str, error: Exception) -> list[Problem]:
    """The problems of a part of a value."""
    return [(part + path, text) for path, text in found(error)]


def found(error: Exception) -> list[Problem]:
    """The problems that an error of structuring stands for."""
    if isinstance(error, Mismatch):
        return error.problems
    if isinstance(error, ClassValidationError):
        return _of_class(error)
    if isinstance(error, RecursionError):
        return [("", "nested too deeply")]
    text = str(error) or "refused"
    return [("", text if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {text}")]


def _of_class(error: ClassValidationError) -> list[Problem]:
    cls = typing.get_origin(error.cl) or error.cl
    fields = {field.name: field for field in attrs.fields(cls)}
    names = ", ".join(field.alias or field.name for field in fields.values() if field.init)
    problems: list[Problem] = []
    in_fields, of_whole = error.group_exceptions()
    for part, note in in_fields:
        name = fields[note.name].alias or note.name
        if isinstance(part, KeyError):
            problems.append((key(name), "is missing"))
        else:
            problems += below(key(name), part)
    for part in of_whole:
        if isinstance(part, ForbiddenExtraKeysError):
            text = f"is no field of {cls.__name__}, which has: {names or 'none'}"
            problems += [(key(name), text) for name in sorted(part.extra_fields, key=str)]
        else:
            problems += below(_validated(part, fields), part)
    return problems


def _validated(error: Exception, fields: dict[str, Any]) -> str:
    """The field whose validator raised: an attrs validator gets it as an argument, but does not note it."""
    traceback = error.__traceback__
    while traceback is not None:
        for value in traceback.tb_frame.f_locals.values():
            if isinstance(value, attrs.Attribute) and fields.get(value.name) == value:
                return key(value.alias or value.name)
        traceback = traceback.tb_next
    return ""
