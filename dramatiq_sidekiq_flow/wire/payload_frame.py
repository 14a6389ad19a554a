"""Payloads of many jobs of one class, which differ in their arguments and ids only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from . import codec
from .payload_fields import STEP_KEY

#: Bytes of a payload after its arguments, at most: its id, and two times.
END = 200

#: Keys that differ from job to job, or from one push to the next.
_OWN = frozenset(("args", "jid", STEP_KEY, "created_at", "enqueued_at"))


@attrs.frozen
class PayloadFrame:
    """All that the payloads have in common.

    Attributes:
      head: Their bytes up to their arguments.
      queued: Whether they go to a queue, and not to ``schedule``.
    """

    head: bytes
    queued: bool

    @classmethod
    def of(cls, fields: Mapping[str, Any], *, queued: bool) -> PayloadFrame:
        """Make the frame from the payload of one of the jobs."""
        common = {name: value for name, value in fields.items() if name not in _OWN}
        raw = codec.encode({**common, "args": []})
        return cls(raw.removesuffix(b"[]}"), queued)

    def payloads(self, arguments: Iterable[bytes], jids: Iterable[bytes], now: float) -> list[bytes]:
        """Make a payload of each arguments, a JSON array, and id.

        Parameters:
          now: Epoch seconds.
        """
        head, end = self.head, b'"' + self._end(now)
        return [b'%b%b,"jid":"%b%b' % (head, array, jid, end) for array, jid in zip(arguments, jids)]

    def steps(
        self, arguments: Iterable[bytes], jids: Iterable[bytes], numbers: Iterable[int], now: float
    ) -> list[bytes]:
        """As :meth:`payloads`, for steps with these numbers."""
        head, end = self.head, b'"' + self._end(now)
        each = zip(arguments, numbers, jids)
        return [b'%b%b,"swf_step":%d,"jid":"%b%b' % (head, array, number, jid, end) for array, number, jid in each]

    def jobs(
        self, arrays: Sequence[Sequence[Any]], jids: Sequence[str], name: Any, numbers: Sequence[int] = ()
    ) -> FramedJobs:
        """Encode jobs, all but the time of their push.

        Parameters:
          arrays: Checked arguments of each job.
          name: Their class, for the error.
          numbers: Of each, if they are steps that are numbered.

        Raises:
          InvalidArguments: if JSON cannot carry a value exactly, or if a payload is too large.
        """
        made = FramedJobs(self, codec.encode_lines(arrays), codec.encode_lines(jids), numbers)
        if len(self.head) + len(made.arguments) + len(made.jids) + END > codec.MAX_SIZE:
            longest = max(map(len, made.arguments.splitlines())) + max(map(len, made.jids.splitlines()))
            codec.check_size(len(self.head) + longest + END, name)
        return made

    def payload(self, arguments: Sequence[Any], jid: str, now: float) -> bytes:
        """Make one payload.

        Parameters:
          arguments: Checked values.
          now: Epoch seconds.

        Raises:
          InvalidArguments: if JSON cannot carry a value exactly.
        """
        return b'%b%b,"jid":%b%b' % (self.head, codec.encode(arguments), codec.encode(jid), self._end(now))

    def _end(self, now: float) -> bytes:
        stamp = codec.encode(now)
        if self.queued:
            return b',"created_at":%b,"enqueued_at":%b}' % (stamp, stamp)
        return b',"created_at":%b}' % stamp


@attrs.frozen
class FramedJobs:
    """Jobs of one frame.

    Attributes:
      arguments, jids: Of each job, as JSON on a line of its own.
      numbers: Of each step; empty for jobs that are not numbered.
    """

    frame: PayloadFrame
    arguments: bytes
    jids: bytes
    numbers: Sequence[int] = ()

    def payloads(self, now: float) -> list[bytes]:
        """Make the payload of each job.

        Parameters:
          now: Epoch seconds.
        """
        # Each id is in quotes, and JSON escapes those inside of it.
        arrays, jids = self.arguments.splitlines(), self.jids[1:-2].split(b'"\n"')
        if self.numbers:
            return self.frame.steps(arrays, jids, self.numbers, now)
        return self.frame.payloads(arrays, jids, now)
