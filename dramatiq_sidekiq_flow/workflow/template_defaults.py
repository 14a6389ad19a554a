"""Defaults of templates, from YAML files."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, InvalidArguments
from ..wire import codec


def load(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping, of JSON values.

    Dates and times become ISO 8601 strings, as JSON has them.

    Raises:
      ConfigurationError: naming the file, and where in it.
    """
    value = _parse(path)
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"The defaults {str(path)!r} must be a mapping of names and values, not {value!r:.100}.", value
        )
    try:
        plain: dict[str, Any] = _plain(value)
        codec.check(plain, "defaults")
    except InvalidArguments as e:
        raise ConfigurationError(f"The defaults {str(path)!r} cannot be used: {e}", value) from None
    except RecursionError:
        raise ConfigurationError(f"The defaults {str(path)!r} hold themselves.", path) from None
    return plain


def _parse(path: str | Path) -> Any:
    """The value in a YAML file."""
    try:
        import yaml
    except ImportError:
        raise ConfigurationError(
            f"To read {str(path)!r}, PyYAML is needed: pip install 'dramatiq-sidekiq-flow[yaml]'.", path
        ) from None
    try:
        # From bytes: YAML says itself how its encoding is found.
        return yaml.safe_load(Path(path).read_bytes())
    except OSError as e:
        raise ConfigurationError(f"The defaults {str(path)!r} cannot be read: {e.strerror}.", path) from None
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ConfigurationError(f"The defaults {str(path)!r} are not valid YAML: {e}", path) from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return value


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise InvalidArguments(f"the key {key!r} is not a string in YAML. Put it in quotes.", key)
    return key
