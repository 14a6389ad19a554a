"""A server for the tests: one for each process of pytest, emptied before each test.

DSF_TEST_REDIS_SERVER names another server to run instead of the embedded one,
a file or a command on the PATH: ``DSF_TEST_REDIS_SERVER=redis-server pytest tests/integration``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis
from hypothesis import settings

from dramatiq_sidekiq_flow.embedded import BINARY_VARIABLE, URL_VARIABLE, EmbeddedServer
from dramatiq_sidekiq_flow.registry import ruby_job

# A slow machine is no failure: pytest-timeout limits each test as a whole.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# Through the environment, so that servers which a test starts itself, and those
# of its subprocesses, are of the same kind.
if os.environ.get("DSF_TEST_REDIS_SERVER"):
    os.environ[BINARY_VARIABLE] = os.environ["DSF_TEST_REDIS_SERVER"]
# And no test writes to a server that is not of the tests.
os.environ.pop(URL_VARIABLE, None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two processes for each core: the tests wait for more than half of their time."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def _ruby_classes() -> Iterator[None]:
    """What a test says of Ruby classes is not said to the next one."""
    before = dict(ruby_job._of_process)
    yield
    ruby_job._of_process.clear()
    ruby_job._of_process.update(before)


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """The server, with whatever the tests before have left in it.  Ask for ``redis_url`` or ``client`` instead."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def redis_url(server: EmbeddedServer) -> str:
    """The URL of an empty server."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the server of ``redis_url``; answers are bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
