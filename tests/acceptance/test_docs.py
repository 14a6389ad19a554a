"""What the documentation shows, happens: its Python runs as printed, and prints what it says.

In a page, ``python`` blocks run one after another as one program, with a worker
beside it; the ``text`` block that follows one is what was printed until all
jobs were done.  Other blocks (``py``, ``yaml``) only show something.
"""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from dramatiq_sidekiq_flow import SidekiqBroker, templates

from ..running import working
from .processes import ROOT

PAGES = ("failures-in-runs", "memory", "sending", "templates")
PRINTED = 'url="redis://localhost:6379/0"'


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs_as_printed(redis_url: str, page: str) -> None:
    templates.clear()
    blocks = re.findall(
        r"^```(python|text)\n(.*?)^```$", (ROOT / "docs" / f"{page}.md").read_text("utf-8"), re.M | re.S
    )
    assert PRINTED in blocks[0][1]
    names: dict[str, object] = {"__name__": page}
    with contextlib.ExitStack() as stack:
        for place, (kind, text) in enumerate(blocks):
            if kind == "text":
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                # Only where the server is differs.
                code = text.replace(PRINTED, f'url="{redis_url}", poll_interval=50')
                exec(compile(code, f"docs/{page}.md", "exec"), names)  # noqa: S102
                broker = names["broker"]
                assert isinstance(broker, SidekiqBroker)
                if place == 0:
                    stack.callback(broker.close)
                for queue in broker.get_declared_queues():
                    with working(broker):
                        broker.join(queue, timeout=30_000)
            expected = blocks[place + 1][1] if place + 1 < len(blocks) and blocks[place + 1][0] == "text" else ""
            assert printed.getvalue() == expected, text
    templates.clear()
