"""Each language's classes, written in the other language."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError
from ..wire.nodes import is_ruby_constant
from .registry import Entry

_RUBY_HEAD = """\
# frozen_string_literal: true

# Written by `python -m dramatiq_sidekiq_flow stubs`: do not edit.
#
# Ruby looks up the class of each step that it advances onto. These stand for
# actors that run in Python: they say the queue and the retries, and nothing
# else. A Ruby worker that takes one of their jobs consumes the wrong queue;
# `perform` raises, so that the step is not passed without its work.
"""

_PYTHON_HEAD = '''\
"""Ruby's job classes. Written by `python -m dramatiq_sidekiq_flow stubs`: do not edit."""

from dramatiq_sidekiq_flow import RubyJob

'''


def ruby(actors: Mapping[str, Entry]) -> str:
    """A Ruby file with a class for each actor whose name is a Ruby constant.

    The others travel as carriers, for which Ruby needs nothing.

    Raises:
      ConfigurationError: where no actor has such a name.
    """
    named = sorted(filter(is_ruby_constant, actors))
    if not named:
        raise ConfigurationError(
            "No actor has the name of a Ruby class, such as Docs::Extract (actor_name=...). "
            "Ruby reaches the others without stubs.",
            list(actors),
        )
    parts = [_RUBY_HEAD]
    for name in named:
        *modules, last = name.split("::")
        # An actor may be the namespace of another; its own class comes first.
        outer = ["::".join(modules[: depth + 1]) for depth in range(len(modules))]
        kinds = ["class" if path in actors else "module" for path in outer] + ["class"]
        lines = [f"{kind} {part}" for kind, part in zip(kinds, [*modules, last])]
        lines = ["  " * depth + line for depth, line in enumerate(lines)]
        inner = "  " * (len(modules) + 1)
        options = ", ".join(f"{key}: {_literal(value)}" for key, value in _ordered(actors[name].options))
        message = _literal(f"{name} runs in Python: no Ruby worker may take its queue")
        lines += [
            f"{inner}include Sidekiq::Job",
            f"{inner}sidekiq_options {options}",
            "",
            f"{inner}def perform(*)",
            f"{inner}  raise NotImplementedError, {message}",
            f"{inner}end",
        ]
        lines += ["  " * depth + "end" for depth in reversed(range(len(modules) + 1))]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def python(classes: Mapping[str, Entry]) -> str:
    """A Python file with a :class:`RubyJob` for each Ruby class.

    Raises:
      ConfigurationError: where there is none.
    """
    if not classes:
        raise ConfigurationError(
            "The registry has no Ruby classes: SidekiqFlow::Registry.write in Ruby puts them there."
        )
    names: dict[str, str] = {}
    for name in sorted(classes):
        identifier = _identifier(name)
        while identifier in names or identifier == "RubyJob":
            identifier += "_"
        names[identifier] = name
    parts = []
    for identifier, name in names.items():
        options = _ordered(classes[name].options)
        said = "".join(f", {key}={value!r}" for key, value in options if _is_keyword(key))
        odd = {key: value for key, value in options if not _is_keyword(key)}
        parts.append(
            f"{identifier} = RubyJob({name!r}{said}{f', **{odd!r}' if odd else ''})\n{_docstring(classes[name])}\n"
        )
    return _PYTHON_HEAD + "\n".join(parts)


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
    """A JSON value as Ruby writes it."""
    if value is None:
        return "nil"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)} => {_literal(item)}" for key, item in value.items()) + "}"
    # "#{...}" would be evaluated by Ruby.
    return json.dumps(value, ensure_ascii=False).replace("#", "\\#") if isinstance(value, str) else json.dumps(value)


def _identifier(name: str) -> str:
    identifier = re.sub(r"\W", "_", name.replace("::", "_"))
    if not identifier.isidentifier():
        identifier = f"_{identifier}"
    return f"{identifier}_" if keyword.iskeyword(identifier) else identifier
