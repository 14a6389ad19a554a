"""Stubs: source code that declares the classes of one language in the other."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigurationError
from ..wire.nodes import is_ruby_constant
from .registry import Entry

_RUBY_HEAD = """\
# frozen_string_literal: true

# Written by `python -m dramatiq_sidekiq_flow stubs`: do not edit.
#
# Ruby looks up the class of each step that it advances onto. These classes
# stand for actors that run in Python: they set the queue and the retries, nothing
# else. A Ruby worker that fetches one of their jobs consumes the wrong queue;
# `perform` raises, so that the step does not count as done.
"""

_PYTHON_HEAD = '''\
"""Ruby's job classes. Written by `python -m dramatiq_sidekiq_flow stubs`: do not edit."""

from dramatiq_sidekiq_flow import RubyJob

'''


def ruby(actors: Mapping[str, Entry]) -> str:
    """Write a Ruby file with a class for each actor whose name is a Ruby constant.

    The others travel as carriers, for which Ruby needs no class.

    Raises:
      ConfigurationError: if no actor has such a name.
    """
    named = sorted(filter(is_ruby_constant, actors))
    if not named:
        raise ConfigurationError(
            "No actor has the name of a Ruby class, such as Docs::Extract (actor_name=...). "
            "Ruby reaches the others without stubs.",
            list(actors),
        )
    return "\n".join([_RUBY_HEAD, *(_ruby_class(name, actors) for name in named)])


def _ruby_class(name: str, actors: Mapping[str, Entry]) -> str:
    """Write the Ruby class of one actor, in its modules."""
    parts = name.split("::")
    lines = [f"{'  ' * depth}{_ruby_keyword(parts, depth, actors)} {part}" for depth, part in enumerate(parts)]
    lines += _ruby_body(actors[name], "  " * len(parts))
    lines += ["  " * depth + "end" for depth in reversed(range(len(parts)))]
    return "\n".join(lines) + "\n"


def _ruby_keyword(parts: list[str], depth: int, actors: Mapping[str, Entry]) -> str:
    # An actor's class may be the namespace of another; names are sorted, so it comes first.
    return "class" if depth == len(parts) - 1 or "::".join(parts[: depth + 1]) in actors else "module"


def _ruby_body(entry: Entry, indent: str) -> list[str]:
    options = ", ".join(f"{key}: {_literal(value)}" for key, value in _ordered(entry.options))
    message = _literal(f"{entry.name} runs in Python: no Ruby worker may consume its queue")
    return [
        f"{indent}include Sidekiq::Job",
        f"{indent}sidekiq_options {options}",
        # The companion's CompactTree looks for it.
        f"{indent}RUNS_IN_PYTHON = true",
        "",
        f"{indent}def perform(*)",
        f"{indent}  raise NotImplementedError, {message}",
        f"{indent}end",
    ]


def python(classes: Mapping[str, Entry]) -> str:
    """Write a Python file with a :class:`RubyJob` for each Ruby class.

    Raises:
      ConfigurationError: if there are no classes.
    """
    if not classes:
        raise ConfigurationError(
            "The registry has no Ruby classes. Publish them with SidekiqFlow::Registry.write in Ruby."
        )
    names = _identifiers(sorted(classes))
    return _PYTHON_HEAD + "\n".join(_helper(identifier, classes[name]) for identifier, name in names.items())


def _identifiers(class_names: Iterable[str]) -> dict[str, str]:
    """Choose a Python name for each class."""
    names: dict[str, str] = {}
    for name in class_names:
        identifier = _identifier(name)
        while identifier in names or identifier == "RubyJob":
            identifier += "_"
        names[identifier] = name
    return names


def _helper(identifier: str, entry: Entry) -> str:
    """Write the statement that declares one class."""
    arguments = repr(entry.name)
    others: dict[str, Any] = {}
    for key, value in _ordered(entry.options):
        if _is_keyword(key):
            arguments += f", {key}={value!r}"
        else:
            others[key] = value
    if others:
        arguments += f", **{others!r}"
    return f"{identifier} = RubyJob({arguments})\n{_docstring(entry)}\n"


def _docstring(entry: Entry) -> str:
    retry = entry.options.get("retry", True)
    times = {"True": "retried as Sidekiq does", "False": "never retried"}.get(str(retry), f"retried {retry} times")
    text = f"In the queue {entry.options.get('queue', 'default')}, {times}."
    return '"""' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""'


def _is_keyword(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key)


def _ordered(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    first = [(key, options[key]) for key in ("queue", "retry") if key in options]
    return first + sorted((key, value) for key, value in options.items() if key not in ("queue", "retry"))


def _literal(value: Any) -> str:
    """Write a JSON value in Ruby's syntax."""
    if value is None:
        return "nil"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return _hash_literal(value)
    if isinstance(value, str):
        # Escape "#", since Ruby would evaluate "#{...}".
        return json.dumps(value, ensure_ascii=False).replace("#", "\\#")
    return json.dumps(value)


def _hash_literal(value: Mapping[Any, Any]) -> str:
    pairs = [f"{_literal(key)} => {_literal(item)}" for key, item in value.items()]
    return "{" + ", ".join(pairs) + "}"


def _identifier(name: str) -> str:
    identifier = re.sub(r"\W", "_", name.replace("::", "_"))
    if not identifier.isidentifier():
        identifier = f"_{identifier}"
    return f"{identifier}_" if keyword.iskeyword(identifier) else identifier
