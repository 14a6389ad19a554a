"""Ruby workers with the companion file, and Ruby files of these tests beside it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from interop.tests.processes import HERE, ROOT, RUN, Site, Worker, ruby_environment

RUBY = ROOT / "dramatiq_sidekiq_flow" / "ruby"
FILE = "sidekiq_flow_companion.rb"


@contextlib.contextmanager
def installed(folder: Path, *files: str, before: Sequence[str] = (), companion: str = FILE) -> Iterator[dict[str, Any]]:
    """The environment of a Ruby process that loads the companion, and files of ``ruby/``.

    Parameters:
      folder: Where they are put together.
      files: Loaded after it.
      before: Loaded before it.
      companion: The file of the package to load.
    """
    with tempfile.TemporaryDirectory(dir=folder) as extra:
        for name in (*before, *files):
            shutil.copy(HERE / "ruby" / name, extra)
        for path in RUBY.glob("*.rb"):
            shutil.copy(path, extra)
        required = (*before, companion, *files)
        yield {"INTEROP_EXTRA": extra, "INTEROP_REQUIRE": ":".join(f"/interop/extra/{name}" for name in required)}


def worker(site: Site, queue: str = "ruby", threads: int = 4, **environment: str) -> Worker:
    """A Ruby worker; no Python actor has a Ruby constant."""
    options = {"INTEROP_POLL": "0.1", "INTEROP_RETRY_IN": "1", "INTEROP_TIMEOUT": "3", "INTEROP_HEARTBEAT": "2"}
    command = [str(RUN), "sidekiq", "-r", "./worker.rb", "-q", queue, "-c", str(threads)]
    return site._start("ruby", command, ruby_environment(site.url, **{**options, **environment}))
