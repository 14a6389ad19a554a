"""Type checks on assignment, for fields of input and output classes."""

from __future__ import annotations

import functools
from typing import Any

import attrs

from ..errors import InvalidInput
from .schema.json_form import dump
from .schema.schema import Schema, failure
from .schema.validation_errors import prefixed


def check_assignment(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> Any:
    """Check a value that is assigned to a field, as a typed actor checks it.

    For ``on_setattr`` of attrs: the class of an input may be mutable, and attrs
    itself does not check the types of fields.

    Examples:

      >>> @attrs.define(on_setattr=check_assignment)
      ... class ExtractInput:
      ...     doc_id: str
      >>> ExtractInput("42").doc_id = 42      # raises InvalidInput

    Raises:
      InvalidInput: if the value does not fit its field; the message names the
        class and the field.
    """
    cls: Any = type(instance)
    field = _schema(cls).fields.get(attribute.alias or attribute.name)
    if field is None:
        return value  # init=False: not a key on the wire
    try:
        field.adapter.load(dump(value))
    except Exception as e:
        raise failure(prefixed(f"{cls.__name__}.{attribute.name}", e), value, InvalidInput) from None
    return value


@functools.cache
def _schema(cls: Any) -> Schema:
    return Schema.of(cls)
