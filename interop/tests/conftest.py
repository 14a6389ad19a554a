"""Real Redis, real workers of both languages.  Nothing is skipped: what is missing is a failure."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# The tests' own helpers in tests/, also where only this folder is collected.
sys.path.insert(0, str(HERE.parent.parent))

from dramatiq_sidekiq_flow import SidekiqBroker  # noqa: E402
from dramatiq_sidekiq_flow.embedded import EmbeddedServer  # noqa: E402
from interop.tests.actors import build, is_constant  # noqa: E402
from interop.tests.processes import Site, ruby  # noqa: E402


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """redis-server where there is one, else the embedded server."""
    with EmbeddedServer(binary=shutil.which("redis-server")) as server:
        yield server


@pytest.fixture(scope="session")
def container(server: EmbeddedServer) -> None:
    """Ruby with Sidekiq and the gem.  Its first use may build it."""
    try:
        versions = ruby(server.url, "-r./setup", "-e", "print RUBY_VERSION, ' ', Sidekiq::VERSION", timeout=900)
    except AssertionError as e:
        pytest.fail(f"There is no Ruby container, and these tests are nothing without it. {e}", pytrace=False)
    print(f"Ruby and Sidekiq {versions}")


def _stubs() -> list[str]:
    broker = build("redis://127.0.0.1:1/0")  # only its actors are looked at
    return [name for name in broker.actors if is_constant(name)]


@pytest.fixture(scope="module")
def both(server: EmbeddedServer, container: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A worker of each language, for all tests of a module: look at your own run only."""
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/0", tmp_path_factory.mktemp("both"), _stubs())
    try:
        site.ruby_worker()
        site.python_worker()
        yield site
        site.stop()
    finally:
        site.close()


@pytest.fixture
def site(server: EmbeddedServer, container: None, tmp_path: Path) -> Iterator[Site]:
    """An empty database; the test starts the workers."""
    site = Site(f"{server.url.rstrip('/').removesuffix('/0')}/1", tmp_path, _stubs())
    try:
        yield site
        site.stop()
    finally:
        site.close()


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Iterator[SidekiqBroker]:
    """The Python side of this process, which only starts workflows; of ``site`` or ``both``, as the test uses."""
    site: Site = request.getfixturevalue("site" if "site" in request.fixturenames else "both")
    broker = build(site.url)
    yield broker
    broker.close()
