"""Payloads of many jobs of one class, which differ in their arguments and ids only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from . import codec

#: Bytes of a payload after its arguments, at most: its id, and two times.
END = 200

#: Keys that differ from job to job, or from one push to the next.
_OWN = frozenset(("args", "jid", "created_at", "enqueued_at"))


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
        head, stamp = self.head, codec.encode(now)
        enqueued = b',"enqueued_at":' + stamp if self.queued else b""
        end = b'","created_at":' + stamp + enqueued + b"}"
        return [b'%b%b,"jid":"%b%b' % (head, array, jid, end) for array, jid in zip(arguments, jids)]
