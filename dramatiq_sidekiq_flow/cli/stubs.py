"""Each language's classes, written in the other language."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping
from typing import Any

from ..typed.registry import Entry
from ..wire.nodes import is_ruby_constant

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
    """
    parts = [_RUBY_HEAD]
    for name in sorted(filter(is_ruby_constant, actors)):
        *modules, last = name.split("::")
        lines = [f"module {module}" for module in modules] + [f"class {last}"]
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
    """A Python file with a :class:`RubyJob` for each Ruby class."""
    names: dict[str, str] = {}
    for name in sorted(classes):
        names.setdefault(_identifier(name), name)
    lines = []
    for identifier, name in names.items():
        options = "".join(f", {key}={value!r}" for key, value in _ordered(classes[name].options) if key.isidentifier())
        lines.append(f"{identifier} = RubyJob({name!r}{options})\n")
    return _PYTHON_HEAD + "".join(lines)


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
    return f"{identifier}_" if keyword.iskeyword(identifier) or not identifier.isidentifier() else identifier
