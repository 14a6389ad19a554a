"""MessageJids: the ids of the messages of a workflow, which are the jids of its jobs in one run."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from logging import Logger
from typing import Any

import dramatiq

from ..broker.message import enqueued_itself
from ..wire.nodes import Wire, jobs

#: Attribute of a message: the first run that it is a step of.
_RUN = "sidekiq_run"


class MessageJids:
    """The messages that jobs of a workflow were made of."""

    def __init__(self) -> None:
        self._messages: list[dramatiq.Message[Any]] = []

    def __iter__(self) -> Iterator[dramatiq.Message[Any]]:
        return iter(self._messages)

    def add(self, message: dramatiq.Message[Any]) -> None:
        """Add a message."""
        self._messages.append(message)

    @property
    def ids(self) -> set[str]:
        """The ids of all messages."""
        return {message.message_id for message in self._messages}

    def belong_to(self, run_id: str) -> None:
        """Note the first run of each message."""
        for message in self._messages:
            message.__dict__.setdefault(_RUN, run_id)

    def for_run(self, run_id: str, *, derived: bool) -> Callable[[Wire], Wire]:
        """Get a function that gives the jobs of a tree their ids in a run; it returns the tree, or a changed copy.

        Parameters:
          derived: True if all ids derive from the run id, and none from messages.
        """
        if derived:
            return partial(_with_ids, ids=self.ids, new={})
        replaced = self._replaced(run_id)
        return partial(_with_ids, ids=replaced, new=replaced)

    def after_step(self, jid: str) -> Callable[[Wire], Wire]:
        """Get a function, as :meth:`for_run`, for a tree that starts in the place of a step.

        The ids of messages that are steps of a run already derive from the step's, so
        that a tree which is made twice has the same jobs.

        Parameters:
          jid: Of the step.

        Raises:
          StepEnqueuedItself: if one of the messages is that step.
        """
        ids: dict[str, str] = {}
        for message in self._messages:
            if message.message_id == jid:
                raise enqueued_itself(message)
            if _RUN in message.__dict__:
                ids[message.message_id] = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{jid}:{message.message_id}"))
        return partial(_with_ids, ids=ids, new=ids)

    def _replaced(self, run_id: str) -> dict[str, str]:
        """Map the id of each message of another run to the id of its step in this run."""
        ids: dict[str, str] = {}
        for message in self._messages:
            if message.__dict__.get(_RUN, run_id) != run_id:
                name = f"{run_id}:{message.message_id}"
                ids[message.message_id] = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        return ids


def separate_duplicates(wire: Wire, logger: Logger) -> None:
    """Make two jobs of a message that is in the tree twice: the second gets a new id when it is pushed."""
    ids = [job.get("jid") for job in jobs(wire)]
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    for job in jobs(wire):
        jid = job.get("jid")
        if jid in seen:
            del job["jid"]
            logger.warning(
                "%s is in this workflow twice, as the same message %s: the second step gets a new id, so results, "
                "abort and cancel do not find it by the message. Call .message(...) for each step.",
                job["class"],
                jid,
            )
        elif jid is not None:
            seen.add(jid)


def without_jids(wire: Wire) -> Wire:
    """Copy a tree without any jid."""
    return _with_ids(wire, {job["jid"] for job in jobs(wire) if "jid" in job}, {})


def _with_ids(wire: Wire, ids: Collection[str], new: Mapping[str, str]) -> Wire:
    """Copy a tree with new ids in place of others; without a new one, the job gets its id when it is pushed."""
    if not ids:
        return wire
    wire = copy.deepcopy(wire)
    for job in jobs(wire):
        jid: Any = job.get("jid")
        if jid in ids:
            del job["jid"]
            if jid in new:
                job["jid"] = new[jid]
    return wire
