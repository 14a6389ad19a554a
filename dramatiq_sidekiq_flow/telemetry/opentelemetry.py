"""One span a step, and a run is one trace.

The context travels as OpenTelemetry's Sidekiq instrumentation for Ruby puts
it: by the propagator's own keys (``traceparent``, ``tracestate``, ``baggage``)
beside ``class`` and ``args``.  Names are those of the semantic conventions for
messaging.

The parent of a step's span is what the job was sent from, and for a
continuation the step that released it: so the steps of a run are one trace,
in the order they followed.  (The conventions allow a link instead, which
makes each step a trace of its own; that suits streams of unrelated messages,
not the steps of one piece of work.)  A job that is tried again has a new span
each time, with the same parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..errors import ConfigurationError
from .observer import JobObserver, Observed

if TYPE_CHECKING:
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import TracerProvider

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.propagators.textmap import DefaultGetter
except ImportError:  # said where it is used: `from dramatiq_sidekiq_flow import *` must work without
    if not TYPE_CHECKING:
        trace, DefaultGetter = None, object

# As in opentelemetry.semconv, where the names of messaging are not yet stable.
SYSTEM = "messaging.system"
DESTINATION = "messaging.destination.name"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
MESSAGE_ID = "messaging.message.id"
CONVERSATION = "messaging.message.conversation_id"
ERROR_TYPE = "error.type"
#: The key of Ruby's instrumentation for the job's class.
JOB_CLASS = "messaging.sidekiq.job_class"
RETRY_COUNT = "messaging.sidekiq.retry_count"
OUTCOME = "messaging.sidekiq.outcome"


class OpenTelemetry(JobObserver):
    """A span for each try of each job, and trace contexts in payloads.

    Examples:

      >>> broker.add_middleware(OpenTelemetry())

    Setting up the SDK (exporter, resource, sampling) is the application's, as
    everywhere.  Without an SDK, contexts are handed on and no span is made.

    Parameters:
      tracer_provider: The global one unless given.
      propagator: The global one unless given.

    Raises:
      ConfigurationError: where OpenTelemetry's API is not installed.
    """

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, propagator: TextMapPropagator | None = None
    ) -> None:
        super().__init__()
        if trace is None:
            raise ConfigurationError(
                "OpenTelemetry is not installed: pip install 'dramatiq-sidekiq-flow[opentelemetry]'."
            )
        from .. import __version__

        self.tracer = trace.get_tracer("dramatiq_sidekiq_flow", __version__, tracer_provider)
        self._propagator = propagator
        self.logger = get_logger(__name__, type(self))

    @property
    def propagator(self) -> TextMapPropagator:
        """The global one may be set after the middleware was made."""
        return self._propagator or propagate.get_global_textmap()

    def attach(self, broker: dramatiq.Broker) -> None:
        """Called by the broker that this middleware was added to."""
        if not isinstance(broker, SidekiqBroker):
            raise ConfigurationError(f"OpenTelemetry needs a SidekiqBroker, not a {type(broker).__name__}.", broker)
        broker.stamps.append(self.stamp)

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        if not isinstance(broker, SidekiqBroker):
            self.logger.error("OpenTelemetry sees nothing on a %s: it needs a SidekiqBroker.", type(broker).__name__)

    # -- consuming ------------------------------------------------------------

    def begin(self, job: Observed) -> None:
        payload = getattr(job.message, "payload", None)
        if payload is None:
            return
        attributes: dict[str, Any] = {
            SYSTEM: "sidekiq",
            DESTINATION: job.queue,
            OPERATION_NAME: "process",
            OPERATION_TYPE: "process",
            MESSAGE_ID: job.jid,
            JOB_CLASS: job.actor,
            RETRY_COUNT: payload.retries,
        }
        if job.run_id is not None:
            attributes[CONVERSATION] = job.run_id
        # From the job alone: whatever this thread did before has no part in it.
        parent = self.propagator.extract(payload.fields, context.Context(), _TEXT)
        span = self.tracer.start_span(
            f"process {job.actor}", parent, kind=trace.SpanKind.CONSUMER, attributes=attributes
        )
        # Attached until the acknowledgement: what follows a finished step is
        # pushed there, and has this span as its parent.
        job.kept = span, context.attach(trace.set_span_in_context(span, parent))

    def end(self, job: Observed) -> None:
        if job.kept is None:
            return
        span, token = job.kept
        span.set_attribute(OUTCOME, job.outcome)
        if job.exception is not None and job.outcome != "requeue":
            span.record_exception(job.exception)
            span.set_attribute(ERROR_TYPE, type(job.exception).__qualname__)
            span.set_status(trace.Status(trace.StatusCode.ERROR, f"{type(job.exception).__name__}: {job.outcome}"))
        span.end()
        context.detach(token)

    # -- sending --------------------------------------------------------------

    def stamp(self, fields: dict[str, Any], why: str) -> None:
        """Write the current context into what is pushed."""
        if why == "advance":
            self._inject(fields)
            return
        attributes = {SYSTEM: "sidekiq", OPERATION_NAME: "create", OPERATION_TYPE: "create"}
        if why == "send":
            name = f"create {fields['class']}"
            attributes.update({DESTINATION: fields["queue"], MESSAGE_ID: fields["jid"], JOB_CLASS: fields["class"]})
        else:
            name = "create workflow"
        # A job sent from nowhere begins a trace: so do all first jobs of a run, together.
        with self.tracer.start_as_current_span(name, kind=trace.SpanKind.PRODUCER, attributes=attributes):
            self._inject(fields)

    def _inject(self, fields: dict[str, Any]) -> None:
        if not trace.get_current_span().get_span_context().is_valid:
            return
        carrier: dict[str, str] = {}
        self.propagator.inject(carrier)
        for key in self.propagator.fields:
            fields.pop(key, None)
        fields.update(carrier)


class _Text(DefaultGetter):
    """Reads a payload's keys; what is no text is not there."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        return [value] if isinstance(value, str) else None


_TEXT = _Text()
