"""Runs as JSON: the fields of a Run as they are, with times in ISO 8601."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from ..runs import Explanation, Run
    from ..runs.remedies import Action

#: What a page of runs does not read.
_DETAILS = frozenset({"steps", "failures", "memory"})


def run_json(run: Run, steps: bool) -> str:
    """One run as an object, with all steps if wanted."""
    return _text(_fields(run, frozenset() if steps else frozenset({"steps"})))


def runs_json(runs: Iterable[Run]) -> str:
    """A page of runs as a list, without what a page does not read: steps, failures and memory."""
    return _text([_fields(run, _DETAILS) for run in runs])


def ids_in(found: Run | Sequence[str], states: Sequence[str]) -> Sequence[str]:
    """The ids of what a method of ``Runs`` returned, without a run that is in another state than one of these."""
    if isinstance(found, Sequence):
        return found
    return [found.id] if found.state in states else []


def ids_json(ids: Sequence[str]) -> str:
    """Ids of runs as a list."""
    return _text(list(ids))


def explanation_json(explanation: Explanation) -> str:
    """One explanation as an object; its run is without steps, failures and memory."""
    return _text(_explained(explanation))


def doctor_json(found: Iterable[tuple[Explanation, Sequence[Action]]]) -> str:
    """Explanations as a list, each with what is done about it."""
    return _text([{**_explained(each), "actions": _plain(actions)} for each, actions in found])


def _explained(explanation: Explanation) -> dict[str, Any]:
    return {
        "run": _fields(explanation.run, _DETAILS),
        "verdict": explanation.verdict,
        "findings": _plain(explanation.findings),
    }


def _fields(value: attrs.AttrsInstance, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    names = [field.name for field in attrs.fields(type(value))]
    return {name: _plain(getattr(value, name)) for name in names if name[0] != "_" and name not in without}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return _fields(value) if attrs.has(type(value)) else str(value)


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
