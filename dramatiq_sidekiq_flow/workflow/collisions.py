"""Warnings of parallel steps that write the same fields of the run's memory.

The last write wins, so the result depends on timing.  If the output fields of
the steps are declared, the collision is found before the run starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs

from ..wire.death_nodes import fallback_of
from ..wire.need import group_of
from ..wire.nodes import Wire
from .engine import Engine


@attrs.frozen
class Collision:
    """Two parallel steps, and the fields that both write."""

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
    """Warn, once for each collision, of parallel steps whose declared output fields are the same."""
    if engine.memory is None:
        return
    declared = _declared_fields(engine)
    if not declared:
        return
    for found in collisions(wire, lambda name: declared.get(name, ())):
        if found not in engine.warned:
            engine.warned.add(found)
            engine.logger.warning("%s", found)


def _declared_fields(engine: Engine) -> dict[str, Iterable[str]]:
    """Map each actor that declares output fields to these fields."""
    declared: dict[str, Iterable[str]] = {}
    for name, actor in engine.broker.actors.items():
        fields = getattr(actor, "output_fields", None)
        if fields:
            declared[name] = fields
    return declared


def collisions(wire: Wire, fields_of: Callable[[str], Iterable[str]]) -> list[Collision]:
    """Find the collisions in a tree.

    Parameters:
      wire: The tree, before its steps are made carriers.
      fields_of: Class or actor name -> its declared output fields.
    """
    found: dict[tuple[str, str], dict[str, None]] = {}
    _writers(wire, fields_of, found)
    return [Collision(first, second, tuple(fields)) for (first, second), fields in found.items()]


def _writers(
    wire: Wire, fields_of: Callable[[str], Iterable[str]], found: dict[tuple[str, str], dict[str, None]]
) -> dict[str, str]:
    """Map the full name of each field to a step that writes it; add the collisions to ``found``."""
    wire = group_of(wire) or wire
    kind = wire["__type__"]
    if kind == "job":
        fallback = fallback_of(wire)
        instead = {} if fallback is None else _writers(fallback, fields_of, found)
        return {**instead, **_written_by(wire, fields_of)}
    if kind == "with_delay":
        return _writers(wire["task"], fields_of, found)
    writers: dict[str, str] = {}
    for child in wire["children"]:
        of_child = _writers(child, fields_of, found)
        if kind == "group":
            _add_member(writers, of_child, found)
        else:
            writers.update(of_child)
    return writers


def _written_by(job: Wire, fields_of: Callable[[str], Iterable[str]]) -> dict[str, str]:
    """Map the full name of each field that one job writes to the job's class."""
    step, namespace = job["class"], job.get("memory_namespace")
    prefix = f"{namespace}." if namespace else ""
    return {prefix + field: step for field in sorted(fields_of(step))}


def _add_member(
    writers: dict[str, str], of_member: Mapping[str, str], found: dict[tuple[str, str], dict[str, None]]
) -> None:
    """Add the fields of a member of a group; a field that another member writes is a collision."""
    for field, step in of_member.items():
        if field in writers:
            pair = (min(writers[field], step), max(writers[field], step))
            found.setdefault(pair, {})[field] = None
        else:
            writers[field] = step
