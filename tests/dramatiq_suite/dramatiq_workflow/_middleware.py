from __future__ import annotations

from typing import Any

import dramatiq

from ._barrier import AtMostOnceBarrier


class WorkflowMiddleware(dramatiq.Middleware):
    """Holds what dramatiq-workflow's does; a step's acknowledgement, not this hook, advances here."""

    def __init__(
        self, rate_limiter_backend: Any, barrier_type: Any = AtMostOnceBarrier, callback_storage: Any = None
    ) -> None:
        self.rate_limiter_backend = rate_limiter_backend
        self.barrier_type = barrier_type

    def after_process_message(self, broker: Any, message: Any, **outcome: Any) -> None:
        raise NotImplementedError(type(self).__doc__)

    def _process_completion_callbacks(self, broker: Any, callbacks: list[Any]) -> None: ...
