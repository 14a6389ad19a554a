"""ActiveJob's wrapper around a job, as far as Python can read it.

Rails pushes an ActiveJob as a job of the adapter's class.  ``wrapped`` is the
ActiveJob's own class, and the only argument is what ActiveJob serialized,
whose ``arguments`` are the arguments of ``perform``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidPayload, UnsupportedPayload

#: The adapter of Rails, and the one that Sidekiq 8 brings along.
WRAPPERS = frozenset(("ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper", "Sidekiq::ActiveJob::Wrapper"))

#: Notes of ActiveJob's in a hash: which keys were symbols, and the like
#: (``active_job/arguments.rb``).  In Python all keys are strings anyway.
_NOTES = frozenset(("_aj_symbol_keys", "_aj_ruby2_keywords", "_aj_hash_with_indifferent_access"))

_OBJECTS = {
    "_aj_globalid": "a record (GlobalID), which only Ruby can load. Pass its id instead.",
    "_aj_serialized": "a Ruby object. Pass strings, numbers, booleans, nil, arrays and hashes instead.",
}


def unwrap(fields: Mapping[str, Any], raw: bytes) -> tuple[str, list[Any]]:
    """The actor's name and its arguments.

    Parameters:
      fields: A payload whose class is one of :data:`WRAPPERS`.
      raw: Its bytes, for errors.

    Raises:
      InvalidPayload: where it is not what ActiveJob writes.
      UnsupportedPayload: for arguments that exist in Ruby only.
    """
    args = fields.get("args")
    job = args[0] if type(args) is list and len(args) == 1 else None
    if type(job) is not dict:
        raise InvalidPayload(f"The job is no ActiveJob, though its class is {fields['class']}.", raw)
    name = fields.get("wrapped") or job.get("job_class")
    arguments = job.get("arguments")
    if type(name) is not str or not name or type(arguments) is not list:
        raise InvalidPayload("The ActiveJob has no class, or no array of arguments.", raw)
    return name, [_plain(value, f"arguments[{index}]", raw) for index, value in enumerate(arguments)]


def _plain(value: Any, path: str, raw: bytes) -> Any:
    if type(value) is list:
        return [_plain(item, f"{path}[{index}]", raw) for index, item in enumerate(value)]
    if type(value) is not dict:
        return value
    for key, what in _OBJECTS.items():
        if key in value:
            raise UnsupportedPayload(f"The ActiveJob {path} is {what}", raw)
    return {key: _plain(item, f"{path}.{key}", raw) for key, item in value.items() if key not in _NOTES}
