"""Every error of the package.

One root, :class:`FlowError`.  A message says what to do, and ``value`` keeps
what was wrong.  The class name is what lands in ``error_class`` of a job in
the ``retry`` or ``dead`` set, so it is part of what operators see.
"""

from __future__ import annotations

import reprlib
from typing import Any

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 100
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 4
_repr.maxlevel = 3


def shortened(value: Any) -> str:
    """The repr of a value for a message: of a large one its beginning and its end.

    Whoever can write to Redis decides how large a value is; a message goes
    into a log line, and into ``error_message``.
    """
    try:
        return _repr.repr(value)
    except Exception:  # an integer of more digits than Python writes, a __repr__ that raises
        return f"<{type(value).__name__}>"


def cut(text: object, limit: int = 500) -> str:
    """A text for a message, cut where it is longer than ``limit`` characters."""
    text = str(text)
    return text if len(text) <= limit else f"{text[:limit]}..."


class FlowError(Exception):
    """Root of all errors of this package.

    Parameters:
      message: What is wrong and what to do about it.
      value: The offending value, untouched (bytes stay bytes).
    """

    def __init__(self, message: str, value: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.value = value


class ConfigurationError(FlowError):
    """The broker, the middleware or the server cannot be used this way."""


class QueueShared(ConfigurationError):
    """A step would go to a queue that a Ruby process consumes, which would pass it without its work.

    ``value`` is the queue.
    """


class EmbeddedServerError(FlowError):
    """The embedded server could not be started."""


# -- what is wrong with bytes that were read --------------------------------


class PayloadError(FlowError):
    """A payload read from Redis cannot be run.  ``value`` is the raw bytes."""


class MalformedPayload(PayloadError):
    """Not JSON, not UTF-8, nested too deeply, too large, or no JSON object."""


class InvalidPayload(PayloadError):
    """A JSON object, but no job: no class, or args that are not an array."""


class UnsupportedPayload(PayloadError):
    """A job in a format that only another program can read (encryption, objects of Ruby)."""


class InvalidCallbacks(PayloadError):
    """The callback stack of a payload is not ``[[id, remaining, propagate], ...]``."""


class InvalidNode(PayloadError):
    """A workflow tree holds something that is not a job, chain, group or delay."""


# -- what a caller did wrong -------------------------------------------------


class InvalidArguments(FlowError):
    """Arguments that JSON cannot carry exactly, or keyword arguments."""


class InvalidOptions(FlowError):
    """A job option that Sidekiq does not understand in this form."""


class InvalidWorkflow(FlowError):
    """A workflow built from something that is not a node."""


class StepEnqueuedItself(InvalidWorkflow):
    """A step enqueued the message that it is running: raise Retry(delay=...) instead.  ``value`` is the message id."""


class InvalidInput(FlowError):
    """What a typed actor was given does not fit its input class; the message names each path.

    ``value`` is what was given, with what the run's memory added.
    """


class InvalidTemplate(FlowError):
    """A template that cannot be registered, or whose builder gave no workflow."""


class UnknownTemplate(FlowError):
    """No template of that name was registered.  ``value`` is the name."""


class NoCurrentRun(FlowError):
    """This needs the run that the current actor belongs to, and there is none."""


class NotReplicated(FlowError):
    """A job or a run is in Redis, and fewer replicas than wanted have confirmed it in time.

    Do not send it again: it runs.  ``value`` is the jid or the run id.

    Attributes:
      wanted, got: Numbers of replicas.
    """

    def __init__(self, message: str, value: Any = None, *, wanted: int = 0, got: int = 0) -> None:
        super().__init__(message, value)
        self.wanted = wanted
        self.got = got


# -- what happened to a job ---------------------------------------------------


class BarrierExpired(FlowError):
    """A barrier of the job's callback stack is gone, so its run cannot go on.

    ``value`` is the barrier's id.
    """


class NothingToRelease(FlowError):
    """A job that cannot be released: it is not in ``dead`` or ``retry``, or nothing follows it.

    ``value`` is the jid.
    """


class CallbacksMissing(FlowError):
    """What a job's callback stack refers to is gone, or is not what was stored.

    ``value`` is the reference.
    """


class WrongType(FlowError):
    """A Redis key that the job needs holds another type.  ``value`` is the key."""


class InvalidOutput(FlowError):
    """What an actor returned cannot be kept in the run's memory, or does not fit its output class."""


class WorkflowMiddlewareMissing(FlowError):
    """A job of a workflow reached a broker that has no WorkflowMiddleware."""


class PoisonPill(FlowError):
    """The job was in flight each time that its worker died, three times over."""


class JobExpired(FlowError):
    """A step was taken after its ``expiry``, so it did not run and what follows it waits.

    ``value`` is the expiry, in epoch seconds.
    """


class StepSkipped(FlowError):
    """A middleware skipped a step, so what follows it waits.  ``value`` is the message id."""


class StepRejected(FlowError):
    """A step was rejected without an error of its own.  ``value`` is the message id."""
