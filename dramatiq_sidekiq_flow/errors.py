"""Errors of the package.

All derive from :class:`FlowError`.  A message names the problem and the cure;
``value`` holds the offending value.  The name of the class is written as
``error_class`` into jobs of the ``retry`` and ``dead`` sets: operators see it,
so it does not change, and does not need the suffix Error.
"""

from __future__ import annotations

import reprlib
from typing import Any

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 100
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 4
_repr.maxlevel = 3


def shortened(value: Any) -> str:
    """Shorten the repr of a value for a message to its beginning and its end.

    A value from Redis may be of any size; a message goes into a log line, and
    into ``error_message``.
    """
    try:
        return _repr.repr(value)
    except Exception:  # an integer of more digits than Python writes, a __repr__ that raises
        return f"<{type(value).__name__}>"


def cut(text: object, limit: int = 500) -> str:
    """Cut a text for a message after ``limit`` characters."""
    text = str(text)
    return text if len(text) <= limit else f"{text[:limit]}..."


class FlowError(Exception):
    """Root of all errors of this package.

    Parameters:
      message: The problem and the cure.
      value: The offending value, untouched (bytes stay bytes).
    """

    def __init__(self, message: str, value: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.value = value


class ConfigurationError(FlowError):
    """The broker, the middleware or the server cannot be used this way."""


class QueueShared(ConfigurationError):
    """A step would go to a queue that a Ruby process consumes, which would skip its work.

    ``value`` is the queue.
    """


class EmbeddedServerError(FlowError):
    """The embedded server could not be started."""


# -- bytes that were read -----------------------------------------------------


class PayloadError(FlowError):
    """A payload read from Redis cannot be run.  ``value`` is the raw bytes."""


class MalformedPayload(PayloadError):
    """Not JSON, not UTF-8, nested too deeply, too large, or not a JSON object."""


class InvalidPayload(PayloadError):
    """A JSON object that is not a job: without a class, or with args that are not an array."""


class UnsupportedPayload(PayloadError):
    """A job in a format that only another program can read (encryption, objects of Ruby)."""


class InvalidCallbacks(PayloadError):
    """The callback stack of a payload is not ``[[id, remaining, propagate], ...]``."""


class InvalidNode(PayloadError):
    """A workflow tree holds something that is not a job, chain, group or delay."""


# -- mistakes of callers ------------------------------------------------------


class InvalidArguments(FlowError):
    """Arguments that JSON cannot carry exactly, or keyword arguments."""


class InvalidOptions(FlowError):
    """A job option that Sidekiq does not understand in this form."""


class InvalidWorkflow(FlowError):
    """A workflow built from something that is not a node."""


class StepEnqueuedItself(InvalidWorkflow):
    """A step enqueued the message that it is running: raise Retry(delay=...) instead.  ``value`` is the message id."""


class InvalidInput(FlowError):
    """The input of a typed actor does not fit its input class; the message names each path.

    ``value`` is the input, including the fields from the run's memory.
    """


class InvalidTemplate(FlowError):
    """A template that cannot be registered, or whose builder did not return a workflow."""


class UnknownTemplate(FlowError):
    """No template of that name was registered.  ``value`` is the name."""


class UnknownRun(FlowError):
    """There is no record of the run, or it has expired.  ``value`` is the run id."""


class CannotRetry(FlowError):
    """A run cannot be retried in this mode, or not now; the message says what to do.  ``value`` is the run id."""


class RunTimeout(FlowError):
    """A run was not at rest in time; it goes on.  ``value`` is the run id."""


class InvalidFilter(FlowError):
    """Runs cannot be listed by this value: a state that is not recorded, a limit below 1."""


class NoCurrentRun(FlowError):
    """The call needs the run of the current actor, and the actor is not a step of a run."""


class NotReplicated(FlowError):
    """A job or a run is in Redis, but too few replicas confirmed it in time.

    Do not send it again: it runs.  ``value`` is the jid or the run id.

    Attributes:
      wanted, got: Numbers of replicas.
    """

    def __init__(self, message: str, value: Any = None, *, wanted: int = 0, got: int = 0) -> None:
        super().__init__(message, value)
        self.wanted = wanted
        self.got = got


# -- jobs -----------------------------------------------------------------------


class BarrierExpired(FlowError):
    """A barrier of the job's callback stack is gone, so its run cannot continue.

    ``value`` is the barrier's id.
    """


class NothingToRelease(FlowError):
    """A job that cannot be released: it is not in ``dead`` or ``retry``, or it has no next steps.

    ``value`` is the jid.
    """


class CallbacksMissing(FlowError):
    """The stored chain of a job's callback stack is gone, or has other contents.

    ``value`` is the reference.
    """


class WrongType(FlowError):
    """A Redis key that the job needs has another type.  ``value`` is the key."""


class SignalTimeout(FlowError):
    """The signal that a step waits for did not come in time.  ``value`` is the name of the signal."""


class InvalidOutput(FlowError):
    """The output of an actor cannot be stored in the run's memory, or does not fit its output class."""


class WorkflowMiddlewareMissing(FlowError):
    """A job of a workflow reached a broker without a WorkflowMiddleware."""


class PoisonPill(FlowError):
    """A job was recovered three times within 72 hours: each time its worker died with the job in flight."""


class JobExpired(FlowError):
    """A step was fetched after its ``expiry``, so it did not run, and the next steps wait.

    ``value`` is the expiry, in epoch seconds.
    """


class StepSkipped(FlowError):
    """A middleware skipped a step, so the next steps wait.  ``value`` is the message id."""


class StepRejected(FlowError):
    """The worker or a middleware rejected a step without an exception.  ``value`` is the message id."""
