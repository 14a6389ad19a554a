"""What goes in and out: an attrs class, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import cattrs

from ..errors import ConfigurationError, FlowError, InvalidArguments, InvalidInput
from ..wire import codec

_SCALARS = (str, int, float, bool)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for scalar in _SCALARS:

        def exactly(value: Any, kind: Any) -> Any:
            if type(value) is not kind:
                raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
            return value

        converter.register_structure_hook(scalar, exactly)
    return converter


_CONVERTER = _converter()


@attrs.frozen(eq=False)
class Schema:
    """A class and its JSON."""

    cls: Any

    @classmethod
    def of(cls, kind: Any) -> Schema:
        """Read a class's annotations.

        Raises:
          ConfigurationError: for what is no attrs class.
        """
        if not isinstance(kind, type) or not attrs.has(kind):
            raise ConfigurationError(f"An attrs class is needed, not {kind!r}.", kind)
        attrs.resolve_types(kind)
        return cls(kind)

    def load(self, value: Any, path: str = "input", error: type[FlowError] = InvalidInput) -> Any:
        """The value of a JSON form.

        Raises:
          error: naming each path at which it does not fit.
        """
        try:
            codec.check(value, path)
            return _CONVERTER.structure(value, self.cls)
        except InvalidArguments as e:
            raise error(e.message, value) from None
        except Exception as e:
            raise error("; ".join(cattrs.transform_error(e, path)), value) from None

    def dump(self, value: Any, path: str = "input", error: type[FlowError] = InvalidInput) -> Any:
        """The JSON form of a value.

        Raises:
          error: for what has none.
        """
        try:
            dumped = _CONVERTER.unstructure(value)
            codec.check(dumped, path)
            return dumped
        except InvalidArguments as e:
            raise error(e.message, value) from None

    def check(self, values: Mapping[str, Any], path: str = "input", error: type[FlowError] = InvalidInput) -> None:
        """See that some of a class's fields fit, whatever becomes of the others.

        Raises:
          error: naming each path at which they do not.
        """
        fields = attrs.fields_dict(self.cls)
        for name, value in values.items():
            if name not in fields:
                known = ", ".join(fields) or "none"
                raise error(f"{path}.{name}: is no field of {self.cls.__name__}, which has: {known}", values)
            try:
                _CONVERTER.structure(value, fields[name].type or object)
            except Exception as e:
                raise error("; ".join(cattrs.transform_error(e, f"{path}.{name}")), values) from None
