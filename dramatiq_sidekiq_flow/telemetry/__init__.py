"""Telemetry of jobs: logs, metrics, traces."""

from .logging import JobLogging
from .opentelemetry import OpenTelemetry
from .prometheus import Prometheus

__all__ = ["JobLogging", "OpenTelemetry", "Prometheus"]
