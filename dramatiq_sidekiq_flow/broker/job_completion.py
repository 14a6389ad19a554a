"""Protocol of what completes the jobs of workflows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..store.group_steps import GroupStep
from ..store.needs import Needs
from ..store.outcomes import Operation
from ..store.runs import Writes
from ..store.step_records import Death
from ..wire.payload import Payload
from .message import SidekiqMessage


class JobReplacement(Protocol):
    """What takes the place of a step that is dead; see ``workflow.death_policy``."""

    @property
    def payload(self) -> bytes: ...
    @property
    def needs(self) -> Needs: ...
    @property
    def death(self) -> Death: ...
    def write(
        self, run: Callable[[Operation[bool]], bool], operation_of: Callable[[Writes], Operation[bool]], /
    ) -> None: ...


class JobCompletion(Protocol):
    """Completion of a finished job; see ``workflow.completion``."""

    @property
    def retrieve(self) -> Callable[[Any], Any] | None: ...
    def advance(self, message: SidekiqMessage, *, may_wait: bool = False) -> GroupStep | None: ...
    def record_of(self, payload: Payload) -> str: ...
    def prepare_wait(self, payload: Payload, *, waits: float) -> Needs: ...
    def replacement(self, payload: Payload, raw: bytes, now: float) -> JobReplacement | None: ...
    def record_of_death(self, payload: Payload, raw: bytes, now: float) -> Death: ...
