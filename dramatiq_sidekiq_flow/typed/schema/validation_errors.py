"""Validation errors and their paths: ``items[2].price: expected float, got str '1'``.

cattrs collects the errors of a class; it does not write them for users, and it
names fields by their attributes, not by their keys on the wire.  The path and
the text are made here.
"""

from __future__ import annotations

import reprlib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

Attributes = Mapping[str, "attrs.Attribute[Any]"]

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


@attrs.frozen
class ValidationError:
    """What is wrong at one place of a value.

    Attributes:
      path: The place, below the value (``.items[2].price``); empty for the value itself.
      text: What is wrong there.
    """

    path: str
    text: str

    def below(self, part: str) -> ValidationError:
        """The same error, seen from the value that this one is a part of."""
        return ValidationError(part + self.path, self.text)


class Mismatch(ValueError):
    """A value that does not fit its type."""

    def __init__(self, errors: Iterable[ValidationError]) -> None:
        self.errors = list(errors)
        super().__init__(self.errors)

    @classmethod
    def at(cls, path: str, text: str) -> Mismatch:
        """A mismatch with one error."""
        return cls([ValidationError(path, text)])

    @classmethod
    def of(cls, expected: str, value: Any, *, path: str = "", hint: str = "") -> Mismatch:
        """A mismatch of a value of the wrong type as a whole."""
        got = "None" if value is None else f"{type(value).__name__} {_repr.repr(value)}"
        return cls.at(path, f"expected {expected}, got {got}{hint}")


def path_part(name: Any) -> str:
    """One key, as a part of a path."""
    return f".{name}" if isinstance(name, str) and name.isidentifier() else f"[{name!r}]"


def prefixed(part: str, error: Exception) -> list[ValidationError]:
    """The errors of a part of a value, with the part's path."""
    return [below.below(part) for below in errors_of(error)]


def errors_of(error: Exception) -> list[ValidationError]:
    """The validation errors that an exception stands for."""
    if isinstance(error, Mismatch):
        return error.errors
    if isinstance(error, ClassValidationError):
        return _errors_of_class(error)
    if isinstance(error, RecursionError):
        return [ValidationError("", "nested too deeply")]
    return [ValidationError("", _text_of(error))]


def _text_of(error: Exception) -> str:
    """The text of an error that a constructor or validator raised; with its class where that says more."""
    text = str(error) or "refused"
    if isinstance(error, (ValueError, TypeError)):
        return text
    return f"{type(error).__name__}: {text}"


def unknown_field(path: str, owner: str, known: Iterable[str]) -> ValidationError:
    """The error for a key that a class does not have."""
    # Not after a semicolon: that is between two errors of one message.
    return ValidationError(path, f"unknown field ({owner} has {', '.join(known) or 'none'})")


def _errors_of_class(error: ClassValidationError) -> list[ValidationError]:
    cls: Any = typing.get_origin(error.cl) or error.cl
    attributes = {attribute.name: attribute for attribute in attrs.fields(cls)}
    in_fields, of_whole = error.group_exceptions()
    errors: list[ValidationError] = []
    for part, note in in_fields:
        errors += _errors_of_field(part, attributes[note.name])
    for part in of_whole:
        if isinstance(part, ForbiddenExtraKeysError):
            errors += _unknown_fields(part, cls, attributes)
        else:
            errors += prefixed(_validated_field(part, attributes), part)
    return errors


def _errors_of_field(error: Exception, attribute: attrs.Attribute[Any]) -> list[ValidationError]:
    part = path_part(attribute.alias or attribute.name)
    if isinstance(error, KeyError):
        return [ValidationError(part, "is missing")]
    return prefixed(part, error)


def _unknown_fields(error: ForbiddenExtraKeysError, cls: type, attributes: Attributes) -> list[ValidationError]:
    known = [attribute.alias or attribute.name for attribute in attributes.values() if attribute.init]
    names = sorted(error.extra_fields, key=str)
    return [unknown_field(path_part(name), cls.__name__, known) for name in names]


def _validated_field(error: Exception, attributes: Attributes) -> str:
    """The path of the field whose validator raised; empty if it was not a validator.

    attrs calls validators inside ``__init__`` and hands them the field, but does
    not add it to the error; nothing but the traceback's frames still has it.
    Calling the validators one by one would need an instance, and there is none.
    """
    traceback = error.__traceback__
    while traceback is not None:
        field = _field_among(traceback.tb_frame.f_locals.values(), attributes)
        if field is not None:
            return path_part(field.alias or field.name)
        traceback = traceback.tb_next
    return ""


def _field_among(values: Iterable[Any], attributes: Attributes) -> attrs.Attribute[Any] | None:
    """The first value that is a field of a class."""
    for value in values:
        if isinstance(value, attrs.Attribute) and attributes.get(value.name) == value:
            return value
    return None
