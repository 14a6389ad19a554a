"""What Dramatiq's tests import from ``tests/common.py``, which is not in its sdist."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import dramatiq
import pika
import pytest

RABBITMQ_USERNAME = RABBITMQ_PASSWORD = "guest"
RABBITMQ_CREDENTIALS = pika.credentials.PlainCredentials(RABBITMQ_USERNAME, RABBITMQ_PASSWORD)

skip_in_ci = pytest.mark.skip(reason="a rate limiter without a broker")
skip_on_windows = pytest.mark.skipif(False, reason="not on Windows")
skip_on_pypy = pytest.mark.skipif(False, reason="not on PyPy")
skip_unless_rabbit_mq = pytest.mark.skip(reason="a RabbitmqBroker, whatever the fixtures are")


@contextlib.contextmanager
def worker(broker: Any, **options: Any) -> Iterator[dramatiq.Worker]:
    """A worker for as long as the block."""
    running = dramatiq.Worker(broker, **options)
    running.start()
    try:
        yield running
    finally:
        running.stop()
