from __future__ import annotations

from dramatiq_sidekiq_flow import CallbackStorage, InlineCallbackStorage


class DedupWorkflowCallbackStorage:
    """RedisCallbackStorage keeps equal callback stacks once; there is no base class for it."""

    def store(self, callbacks: object) -> object:
        raise NotImplementedError(type(self).__doc__)


__all__ = ["CallbackStorage", "DedupWorkflowCallbackStorage", "InlineCallbackStorage"]
