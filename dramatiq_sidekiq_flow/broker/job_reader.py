"""Reads the jobs that were fetched from one queue."""

from __future__ import annotations

import time

from dramatiq.logging import get_logger

from ..errors import FlowError, WorkflowMiddlewareMissing
from ..process.events import Buried
from ..store.connection import LOST
from ..wire.callbacks import Callback
from ..wire.payload import Payload, buried
from .failure_writer import FailureWriter
from .message import SidekiqMessage
from .retries import Failure, Retries, decide
from .worker_process import WorkerProcess


class JobReader:
    """Decodes payloads into messages; writes the failure of a payload that cannot be read."""

    def __init__(self, process: WorkerProcess, failures: FailureWriter) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.failures = failures
        self.queue_name, self.member = failures.queue_name, failures.member

    def read(self, receipt: str, raw: bytes, stack: tuple[Callback, ...] | None = None) -> SidekiqMessage | None:
        """Decode a job into a message; return None if that failed and the job has left flight.

        Parameters:
          stack: Its callback stack, if this process has written the payload.

        Raises:
          ConnectionClosed, redis.ConnectionError, ServerUnavailable: if Redis cannot be reached.
        """
        payload = None
        completion = self.process.completion
        try:
            payload = Payload.decode(raw, None if completion is None else completion.retrieve, stack)
            if payload.stack and completion is None:
                raise WorkflowMiddlewareMissing(
                    "This job is a step of a workflow, and the broker has no WorkflowMiddleware to continue its "
                    "run. Add one, then retry the job.",
                    raw,
                )
        except LOST:
            raise
        except FlowError as e:
            self._bury(receipt, raw, payload, e)
            return None
        except Exception as e:
            self._retry_later(receipt, raw, e)
            return None
        return SidekiqMessage(payload, self.queue_name, self.member, receipt)

    def _bury(self, receipt: str, raw: bytes, payload: Payload | None, error: FlowError) -> None:
        """Move a job that cannot be run to ``dead``."""
        dead = Failure("dead", buried(raw, error, now=time.time(), queue=self.queue_name))
        self.failures.write(receipt, dead, payload)
        text = "A job of queue %r cannot be run and is now in 'dead': %s"
        self.process.log_burst(self.logger.error, text, self.queue_name, error)
        self.process.events.emit(Buried(self.queue_name, error))

    def _retry_later(self, receipt: str, raw: bytes, error: Exception) -> None:
        """Write an error of a custom callback storage as a failure of the job."""
        payload = Payload.decode(raw, lambda stored: None)
        actor = self.process.actors.get(payload.actor_name)
        self.failures.write(receipt, decide(payload, self.queue_name, error, actor, Retries()), payload)
        text = "The callback stack of a job of queue %r was not found: %s"
        self.process.log_burst(self.logger.error, text, self.queue_name, error)
