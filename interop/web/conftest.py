"""Real `Sidekiq::Web`, with the tab of workflows, on a Redis that only Python writes to, and a real browser.

What is missing is a failure.
"""

from __future__ import annotations

import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from dramatiq_sidekiq_flow.embedded import EmbeddedServer  # noqa: E402
from interop.companion import GEM  # noqa: E402
from interop.tests.processes import RUN, Worker, ruby, ruby_environment  # noqa: E402
from interop.web.browser import Browser, chromium  # noqa: E402
from interop.web.pages import VERSIONS, Pages, Version  # noqa: E402
from interop.web.scene import Scene  # noqa: E402
from tests.running import eventually  # noqa: E402

SHOTS = ROOT / "build" / "web-ui"

#: The tab of workflows, in the gem.
TAB = "sidekiq_flow/web.rb"


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """redis-server where there is one, else the embedded server."""
    with EmbeddedServer(binary=shutil.which("redis-server")) as server:
        yield server


@pytest.fixture(scope="session")
def sidekiq(server: EmbeddedServer) -> str:
    """The version of Sidekiq.  Its first use may build the container."""
    try:
        return ruby(
            server.url, "-rsidekiq/web", "-rrack/session", "-rpuma", "-e", "print Sidekiq::VERSION", timeout=900
        )
    except AssertionError as e:
        pytest.fail(f"There is no Ruby container, and these tests are nothing without it. {e}", pytrace=False)


@pytest.fixture(scope="session")
def version(sidekiq: str) -> Version:
    """How this version's Web UI differs from others'."""
    major = sidekiq.partition(".")[0]
    if major not in VERSIONS:
        pytest.fail(f"pages.py does not know the Web UI of Sidekiq {sidekiq}: add it to VERSIONS", pytrace=False)
    return VERSIONS[major]


@pytest.fixture(scope="session")
def web(server: EmbeddedServer, sidekiq: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `Sidekiq::Web`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = f"http://127.0.0.1:{port}"
    command = ["puma", "--environment", "production", "--threads", "1:4", "--bind", f"tcp://127.0.0.1:{port}", "web.ru"]
    log = tmp_path_factory.mktemp("web") / "puma.log"
    environment = ruby_environment(server.url, INTEROP_EXTRA=str(GEM), INTEROP_WEB=f"/interop/extra/lib/{TAB}")
    puma = Worker("web", [str(RUN), *command], environment, log)

    def answers() -> bool:
        puma.check()
        try:
            with urllib.request.urlopen(root, timeout=10) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    try:
        eventually(answers, 60.0, "an answer of the Web UI")
        yield root
        puma.check()
        puma.terminate()
        puma.wait()
    except BaseException:
        print(puma.tail())
        raise
    finally:
        puma.kill()


@pytest.fixture(scope="session")
def page(web: str, sidekiq: str, version: Version, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """The pages in a browser; screenshots go to build/web-ui, to a folder for this version."""
    shots = SHOTS / f"sidekiq-{sidekiq}"
    shutil.rmtree(shots, ignore_errors=True)
    shots.mkdir(parents=True)
    with chromium(tmp_path_factory.mktemp("browser")) as driver:
        yield Pages(Browser(driver, web, shots), version)


def _scene(server: EmbeddedServer, logs: Path) -> Iterator[Scene]:
    scene = Scene(server.url, logs)
    try:
        yield scene
    finally:
        scene.close()


@pytest.fixture(scope="module")
def filled(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two processes at work, and something on each page.  Only to look at."""
    for scene in _scene(server, tmp_path_factory.mktemp("filled")):
        scene.fill()
        yield scene


@pytest.fixture(scope="module")
def working(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One process at work, for all tests of a module: look at your own jobs only."""
    for scene in _scene(server, tmp_path_factory.mktemp("working")):
        scene.start()
        yield scene


@pytest.fixture
def empty(server: EmbeddedServer, tmp_path: Path) -> Iterator[Scene]:
    """No process; the test starts them."""
    yield from _scene(server, tmp_path)
