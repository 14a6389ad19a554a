"""What ``stubs`` and ``registry`` write."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..registry import file as registry_file
from ..registry import registry, stubs
from ..registry.registry import Entry
from ..store.class_registry import UNREADABLE
from .app_lookup import find_broker
from .command_errors import warn


def ruby_stubs(name: str) -> str:
    """Ruby classes for the actors of a broker."""
    return stubs.ruby(registry.actors(find_broker(name)))


def python_helpers(path: str) -> str:
    """Python helpers for the Ruby classes of a registry file."""
    known = registry_file.read(path)
    return stubs.python(_without(known.get("ruby", {}), known.get("python", {})))


def registry_content(name: str, path: str | None) -> str:
    """Make the registry file: Python's part from the broker, Ruby's from Redis, or from the old file without Redis."""
    broker = find_broker(name)
    content: dict[str, Any] = {}
    if path is not None and Path(path).exists():
        content.update(registry_file.read(path))
    content["python"] = registry.actors(broker)
    try:
        published = registry.published(broker.connection)
    except UNREADABLE as e:
        warn(f"Ruby's classes were not updated: {broker.connection.url} cannot be read: {e}")
        return registry_file.dump(content)
    # Ruby also publishes its stubs of Python's actors.
    ruby = _without(published["ruby"], {**published["python"], **content["python"]})
    if ruby:
        content["ruby"] = ruby
    return registry_file.dump(content)


def _without(classes: Mapping[str, Entry], others: Mapping[str, Entry]) -> dict[str, Entry]:
    return {name: entry for name, entry in classes.items() if name not in others}


def write(text: str, path: str | None) -> None:
    """Write to a file, or to standard output."""
    if path is None:
        sys.stdout.write(text)
    else:
        Path(path).write_text(text, "utf-8")
