from __future__ import annotations

from typing import Any

import dramatiq

from dramatiq_sidekiq_flow import Chain, Group, WithDelay

Message = dramatiq.Message
SerializedCompletionCallbacks = list[tuple[str, Any, bool]]

__all__ = ["Chain", "Group", "Message", "SerializedCompletionCallbacks", "WithDelay"]
