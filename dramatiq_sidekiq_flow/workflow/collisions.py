"""Steps that run side by side and write the same fields of the memory.

The last one wins, and which one that is depends on who is faster.  Where the
fields that a step writes are declared, this is seen before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from ..wire.nodes import Wire
from .engine import Engine


@attrs.frozen
class Collision:
    """Two steps, and the fields that both write."""

    first: str
    second: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        steps = (
            f"{self.first!r} and {self.second!r} run" if self.first != self.second else f"Several {self.first!r} run"
        )
        return (
            f"{steps} side by side and write the same to the run's memory: {', '.join(self.fields)}. The last wins. "
            'To keep both, give each branch a name: Group(Namespace("left", ...), Namespace("right", ...)).'
        )


def warn_of_collisions(engine: Engine, wire: Wire) -> None:
    """Warn, once, of steps that run side by side and are known to write the same fields."""
    declared = {name: getattr(actor, "output_fields", None) for name, actor in engine.broker.actors.items()}
    if engine.memory is None or not any(declared.values()):
        return
    for found in collisions(wire, lambda name: declared.get(name) or ()):
        if found not in engine.warned:
            engine.warned.add(found)
            engine.logger.warning("%s", found)


def collisions(wire: Wire, fields_of: Callable[[str], Iterable[str]]) -> list[Collision]:
    """What collides in a tree.

    Parameters:
      wire: The tree, before its steps are made carriers.
      fields_of: Class or actor name -> the fields that it is known to write.
    """
    found: dict[tuple[str, str], dict[str, None]] = {}
    _writers(wire, fields_of, found)
    return [Collision(first, second, tuple(fields)) for (first, second), fields in found.items()]


def _writers(
    wire: Wire, fields_of: Callable[[str], Iterable[str]], found: dict[tuple[str, str], dict[str, None]]
) -> dict[str, str]:
    """Full name of a field -> a step that writes it."""
    if wire["__type__"] == "job":
        step, namespace = wire["class"], wire.get("memory_namespace")
        prefix = f"{namespace}." if namespace else ""
        return {prefix + field: step for field in sorted(fields_of(step))}
    if wire["__type__"] == "with_delay":
        return _writers(wire["task"], fields_of, found)
    writers: dict[str, str] = {}
    for child in wire["children"]:
        for field, step in _writers(child, fields_of, found).items():
            if field in writers and wire["__type__"] == "group":
                pair = (min(writers[field], step), max(writers[field], step))
                found.setdefault(pair, {})[field] = None
            else:
                writers[field] = step
    return writers
