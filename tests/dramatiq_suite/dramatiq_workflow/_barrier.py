from __future__ import annotations

from typing import Any


class AtMostOnceBarrier:
    """Barriers are counted inside of Redis, by the script that pushes what follows."""

    def __init__(self, *args: Any, **options: Any) -> None:
        raise NotImplementedError(type(self).__doc__)
