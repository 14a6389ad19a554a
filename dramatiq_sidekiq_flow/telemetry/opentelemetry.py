"""OpenTelemetry: a span for each step, and a trace for each run.

The context is passed on in the keys that OpenTelemetry's Sidekiq instrumentation
for Ruby uses: the propagator's own keys (``traceparent``, ``tracestate``,
``baggage``), next to ``class`` and ``args`` in the payload.  Names are those of the
semantic conventions for messaging.

The parent of a step's span is the span that sent the job; for a continuation,
the span of the step that released it.  So the steps of a run are one trace, in
their order.  (The conventions also allow a link, which makes each step a separate
trace; that suits streams of unrelated messages, not the steps of one run.)  Each
retry of a job is a new span with the same parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import dramatiq
from dramatiq.logging import get_logger

from ..broker import SidekiqBroker
from ..errors import ConfigurationError
from .observer import JobExecution, JobObserver

if TYPE_CHECKING:
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import TracerProvider

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.propagators.textmap import DefaultGetter
except ImportError:  # OpenTelemetry() raises instead: `from dramatiq_sidekiq_flow import *` must work without it
    if not TYPE_CHECKING:
        trace, DefaultGetter = None, object

# Copied from opentelemetry.semconv, since its names for messaging are not yet stable.
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


@attrs.frozen
class _Started:
    """A span, and the token that detaches its context."""

    span: Any
    token: Any


class OpenTelemetry(JobObserver):
    """Record a span for each attempt of each job, and write trace contexts into payloads.

    Examples:

      >>> broker.add_middleware(OpenTelemetry())

    The application sets up the SDK (exporter, resource, sampling).  Without an
    SDK, contexts are passed on, but no spans are recorded.

    Parameters:
      tracer_provider: The provider of the tracer; by default the global one.
      propagator: The propagator of contexts; by default the global one.

    Raises:
      ConfigurationError: if OpenTelemetry's API is not installed.
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
        """The propagator in use.  Looked up each time, since the global one may be set later."""
        return self._propagator or propagate.get_global_textmap()

    def attach(self, broker: dramatiq.Broker) -> None:
        """Add the middleware to a broker; called by the broker.

        Raises:
          ConfigurationError: if the broker is not a SidekiqBroker.
        """
        if not isinstance(broker, SidekiqBroker):
            raise ConfigurationError(f"OpenTelemetry needs a SidekiqBroker, not a {type(broker).__name__}.", broker)
        broker.stamps.append(self.stamp)

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        if not isinstance(broker, SidekiqBroker):
            self.logger.error("OpenTelemetry records no spans on a %s. Use a SidekiqBroker.", type(broker).__name__)

    # -- consuming ------------------------------------------------------------

    def begin(self, job: JobExecution) -> None:
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
        # From the payload only: the current context of this thread is not the parent.
        parent = self.propagator.extract(payload.fields, context.Context(), _TEXT)
        span = self.tracer.start_span(
            f"process {job.actor}", parent, kind=trace.SpanKind.CONSUMER, attributes=attributes
        )
        # Attached until the acknowledgement pushes the next steps, since this span
        # is their parent.
        job.state = _Started(span, context.attach(trace.set_span_in_context(span, parent)))

    def end(self, job: JobExecution) -> None:
        if job.state is None:
            return
        span = job.state.span
        span.set_attribute(OUTCOME, job.outcome)
        if job.exception is not None and job.outcome != "requeue":
            span.record_exception(job.exception)
            span.set_attribute(ERROR_TYPE, type(job.exception).__qualname__)
            span.set_status(trace.Status(trace.StatusCode.ERROR, f"{type(job.exception).__name__}: {job.outcome}"))
        span.end()
        context.detach(job.state.token)

    # -- sending --------------------------------------------------------------

    def stamp(self, fields: dict[str, Any], why: str) -> None:
        """Write the current context into a payload before it is pushed."""
        if why == "advance":
            self._inject(fields)
            return
        attributes = {SYSTEM: "sidekiq", OPERATION_NAME: "create", OPERATION_TYPE: "create"}
        if why == "send":
            name = f"create {fields['class']}"
            attributes.update({DESTINATION: fields["queue"], MESSAGE_ID: fields["jid"], JOB_CLASS: fields["class"]})
        else:
            name = "create workflow"
        # Outside of a span, a job begins a trace; the first jobs of a run begin one trace together.
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
    """Reader of the text values of a payload; other values count as missing."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        if not isinstance(value, str):
            return None
        return [value]


_TEXT = _Text()
