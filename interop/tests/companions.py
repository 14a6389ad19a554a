"""Ruby workers with the companion, and Ruby files of these tests beside it.

The companion has two forms: the gem, and the file to copy that is built from it. ``test_companion.py`` runs with both;
the others with the file on Sidekiq 7 and with the gem on Sidekiq 8, or with ``INTEROP_COMPANION_FORM``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from interop.tests.processes import HERE, ROOT, RUN, Site, Worker, ruby_environment

RUBY = ROOT / "dramatiq_sidekiq_flow" / "ruby"

Form = Literal["file", "gem"]
FORMS: tuple[Form, ...] = ("file", "gem")

#: In the folder ``ruby`` of the package.
COMPANION: dict[Form, str] = {"file": "sidekiq_flow_companion.rb", "gem": "sidekiq-flow/lib/sidekiq_flow.rb"}
REGISTRY: dict[Form, str] = {"file": "sidekiq_flow_registry.rb", "gem": "sidekiq-flow/lib/sidekiq_flow/registry.rb"}


def form() -> Form:
    """The form that this run tests, where a test does not run with both."""
    sidekiq = os.environ.get("INTEROP_SIDEKIQ", "7")
    chosen = os.environ.get("INTEROP_COMPANION_FORM") or ("gem" if sidekiq == "8" else "file")
    if chosen not in FORMS:
        raise ValueError(f"INTEROP_COMPANION_FORM must be one of {', '.join(FORMS)}, not {chosen}")
    return "gem" if chosen == "gem" else "file"


def companion(of: Form | None = None) -> dict[str, str]:
    """The environment of a Ruby process that loads the companion and nothing of these tests."""
    return {"INTEROP_EXTRA": str(RUBY), "INTEROP_REQUIRE": f"/interop/extra/{COMPANION[of or form()]}"}


@contextlib.contextmanager
def installed(
    folder: Path,
    *files: str,
    before: Sequence[str] = (),
    entry: dict[Form, str] = COMPANION,
) -> Iterator[dict[str, Any]]:
    """The environment of a Ruby process that loads the companion, and files of ``ruby/``.

    Parameters:
      folder: Where they are put together.
      files: Loaded after it.
      before: Loaded before it.
      entry: What of the package to load, in each form.
    """
    with tempfile.TemporaryDirectory(dir=folder) as extra:
        for name in (*before, *files):
            shutil.copy(HERE / "ruby" / name, extra)
        shutil.copytree(RUBY, extra, dirs_exist_ok=True)
        required = (*before, entry[form()], *files)
        yield {"INTEROP_EXTRA": extra, "INTEROP_REQUIRE": ":".join(f"/interop/extra/{name}" for name in required)}


def worker(site: Site, queue: str = "ruby", threads: int = 4, **environment: str) -> Worker:
    """A Ruby worker; no Python actor has a Ruby constant."""
    options = {"INTEROP_POLL": "0.1", "INTEROP_RETRY_IN": "1", "INTEROP_TIMEOUT": "3", "INTEROP_HEARTBEAT": "2"}
    command = [str(RUN), "sidekiq", "-r", "./worker.rb", "-q", queue, "-c", str(threads)]
    return site._start("ruby", command, ruby_environment(site.url, **{**options, **environment}))
