"""Validation errors and their paths: ``items[2].price: expected float, got str '1'``.

cattrs collects the errors of a class, but its texts are not meant for users, and
it names fields by their attributes, not by their keys on the wire.  This module
makes the path and the text.
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
    """An error at one place of a value.

    Attributes:
      path: The place inside the value (``.items[2].price``); "" for the value itself.
      text: Description of the error.
    """

    path: str
    text: str

    def below(self, part: str) -> ValidationError:
        """Return the same error with the path from an outer value."""
        return ValidationError(part + self.path, self.text)


class InvalidValue(ValueError):
    """A value that does not fit its type."""

    def __init__(self, errors: Iterable[ValidationError]) -> None:
        self.errors = list(errors)
        super().__init__(self.errors)

    @classmethod
    def at(cls, path: str, text: str) -> InvalidValue:
        """Make a mismatch with one error."""
        return cls([ValidationError(path, text)])

    @classmethod
    def of(cls, expected: str, value: Any, *, path: str = "", hint: str = "") -> InvalidValue:
        """Make the mismatch of a whole value that has the wrong type."""
        got = "None" if value is None else f"{type(value).__name__} {_repr.repr(value)}"
        return cls.at(path, f"expected {expected}, got {got}{hint}")


def path_part(name: Any) -> str:
    """Format one key as a part of a path."""
    return f".{name}" if isinstance(name, str) and name.isidentifier() else f"[{name!r}]"


def prefixed(part: str, error: Exception) -> list[ValidationError]:
    """Return the errors of a part of a value, with the part's path."""
    return [below.below(part) for below in errors_of(error)]


def errors_of(error: Exception) -> list[ValidationError]:
    """Convert an exception to validation errors."""
    if isinstance(error, InvalidValue):
        return error.errors
    if isinstance(error, ClassValidationError):
        return _errors_of_class(error)
    if isinstance(error, RecursionError):
        return [ValidationError("", "nested too deeply")]
    return [ValidationError("", _text_of(error))]


def _text_of(error: Exception) -> str:
    """Return the text of a constructor's or validator's error; with its class if not ValueError or TypeError."""
    text = str(error) or "refused"
    if isinstance(error, (ValueError, TypeError)):
        return text
    return f"{type(error).__name__}: {text}"


def unknown_field(path: str, owner: str, known: Iterable[str]) -> ValidationError:
    """Make the error for a key that a class does not have."""
    # In parentheses, not after a semicolon, which separates two errors of one message.
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
    """Find the path of the field whose validator raised; return "" if it was not a validator.

    attrs calls validators inside ``__init__`` and passes them the field, but does
    not add it to the error, so only the frames of the traceback still hold it.
    Calling the validators one by one would need an instance, which does not exist.
    """
    traceback = error.__traceback__
    while traceback is not None:
        field = _field_among(traceback.tb_frame.f_locals.values(), attributes)
        if field is not None:
            return path_part(field.alias or field.name)
        traceback = traceback.tb_next
    return ""


def _field_among(values: Iterable[Any], attributes: Attributes) -> attrs.Attribute[Any] | None:
    """Return the first value that is a field of a class."""
    for value in values:
        if isinstance(value, attrs.Attribute) and attributes.get(value.name) == value:
            return value
    return None
