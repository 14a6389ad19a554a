"""The registry as a file that is checked in with the code.

Its form is ``{"python": {"Docs::Extract": {"queue": "python", "retry": 5}}, "ruby": {...}}``;
either part may be missing.  ``python -m dramatiq_sidekiq_flow registry``
writes Python's part, ``SidekiqFlow::Registry.write`` Ruby's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, FlowError
from ..wire import codec
from .registry import LANGUAGES, Entry

#: Language -> class name -> entry.
RegistryFile = Mapping[str, Mapping[str, Entry]]


def read(path: str | Path) -> RegistryFile:
    """Read a file.

    Raises:
      ConfigurationError: if the file cannot be read or is not a registry; the
        message names the file.
    """
    try:
        value = codec.decode(Path(path).read_bytes())
        if not value.keys() <= set(LANGUAGES):
            unknown = ", ".join(sorted(value.keys() - set(LANGUAGES)))
            raise ConfigurationError(f"its keys must be python and ruby, not {unknown}.", value)
        return {language: _entries(language, classes) for language, classes in value.items()}
    except OSError as e:
        raise ConfigurationError(f"The registry {str(path)!r} cannot be read: {e.strerror}.", path) from None
    except FlowError as e:
        raise ConfigurationError(f"The registry {str(path)!r} cannot be read: {e}", path) from None


def dump(content: RegistryFile) -> str:
    """Make the text of a file.  It is sorted, so that a diff shows changes only."""
    value: dict[str, Any] = {
        language: {name: entry.dump() for name, entry in entries.items()} for language, entries in content.items()
    }
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _entries(language: str, classes: Any) -> dict[str, Entry]:
    if type(classes) is not dict:
        raise ConfigurationError(f"{language} must be an object of classes.", classes)
    return {name: Entry.load(name, value) for name, value in classes.items()}
