"""The web page of runs in a real browser: ``sidekiq-flow web`` on its own Redis.  What is missing is a failure."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from dramatiq_sidekiq_flow.embedded import EmbeddedServer  # noqa: E402
from interop.web.browser import chromium  # noqa: E402
from interop.web_page.run_pages import RunPages  # noqa: E402
from tests.running import eventually  # noqa: E402

SHOTS = ROOT / "build" / "web-page"


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """redis-server where there is one, else the embedded server."""
    with EmbeddedServer(binary=shutil.which("redis-server")) as server:
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the server, which is empty."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def site(server: EmbeddedServer) -> Iterator[str]:
    """The address of the pages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dramatiq_sidekiq_flow", "web", "--port", str(port)]
    environment = {**os.environ, "REDIS_URL": server.url}
    root = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:

        def answers() -> bool:
            assert process.poll() is None
            try:
                with urllib.request.urlopen(root, timeout=10) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, ConnectionError):
                return False

        try:
            eventually(answers, 60.0, "an answer of the web page")
            yield root
        finally:
            process.terminate()
            assert process.wait(20) is not None


@pytest.fixture(scope="session")
def pages(site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunPages]:
    """The pages in a browser; screenshots go to build/web-page."""
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
    with chromium(tmp_path_factory.mktemp("browser")) as driver:
        yield RunPages(driver, site, SHOTS)
