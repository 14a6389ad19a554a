"""Checks of the parts that an application gives to a WorkflowMiddleware."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError

#: Methods that each parameter must have, and an example.
_PARTS = {
    "memory": (("read", "write"), "RedisHashMemory()"),
    "barriers": (("create", "wait"), "MyBarriers()"),
    "callback_storage": (("store", "retrieve"), "RedisCallbackStorage()"),
}


def check_parts(**parts: Any) -> None:
    """Check that the parts of an application have the methods that are called.

    Raises:
      ConfigurationError: if one has not.
    """
    for name, value in parts.items():
        methods, example = _PARTS[name]
        if value is None:
            continue
        if isinstance(value, type):
            raise ConfigurationError(
                f"{name}={value.__name__} is a class; pass an instance: {name}={value.__name__}().", value
            )
        if not all(callable(getattr(value, method, None)) for method in methods):
            raise ConfigurationError(
                f"{name} must be an object such as {example}, not a {type(value).__name__}.",
                value,
            )
