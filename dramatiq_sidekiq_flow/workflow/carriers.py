"""Carriers: steps of Python in a form that Ruby can push (``wire.nodes.carry``)."""

from __future__ import annotations

from collections.abc import Iterable

from ..wire.nodes import Wire, carry, is_ruby_constant
from .engine import Engine


def make_carriers(steps: Iterable[Wire], noop_class: str, engine: Engine) -> None:
    """Turn the steps that Ruby could not push into carriers, in place: Ruby looks up the class of each step."""
    for step in steps:
        if not is_ruby_constant(step["class"]):
            carried = carry({**engine.job_options.with_defaults(step["class"]), **step}, noop_class)
            step.clear()
            step.update(carried)
