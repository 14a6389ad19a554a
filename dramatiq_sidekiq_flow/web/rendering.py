"""Pages and parts of them from templates; all that is not of a template is escaped."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import jinja2
from starlette.responses import Response

from . import wording

HERE = Path(__file__).parent
STATIC = HERE / "static"


@attrs.frozen
class Fragment:
    """A part of a page.

    Attributes:
      digest: Differs where the HTML does.
    """

    html: str
    digest: str


@attrs.frozen
class Links:
    """Addresses of the pages.

    Attributes:
      root: Where the application is mounted; "" at the root of the server.
    """

    root: str

    def home(self, **query: str | None) -> str:
        """The address of the list of runs."""
        return f"{self.root}/{_query(query)}"

    def run(self, run_id: str, **query: str | None) -> str:
        """The address of a run."""
        return f"{self.root}/runs/{_quoted(run_id)}{_query(query)}"

    def act(self, action: str, run_id: str) -> str:
        """The address that a button sends to."""
        return f"{self.root}/actions/{action}/{_quoted(run_id)}"

    def list_events(self, **query: str | None) -> str:
        """The events of the list of runs."""
        return f"{self.root}/events/list{_query(query)}"

    def run_events(self, run_id: str, **query: str | None) -> str:
        """The events of a run."""
        return f"{self.root}/events/runs/{_quoted(run_id)}{_query(query)}"

    def static(self, name: str) -> str:
        """The address of a file, which changes with its content."""
        return f"{self.root}/static/{name}?{_digest_of_file(name)}"


def _quoted(text: str) -> str:
    return quote(text, safe=":", errors="surrogateescape")


def _query(query: dict[str, str | None]) -> str:
    text = urlencode({name: value for name, value in query.items() if value}, errors="surrogateescape")
    return f"?{text}" if text else ""


@lru_cache
def _digest_of_file(name: str) -> str:
    return digest((STATIC / name).read_text("utf-8"))


def digest(text: str) -> str:
    """A short text that differs where the text does."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(wording.FILTERS)
    return environment


_templates = _environment()


def render(template: str, **values: Any) -> str:
    """Fill a template."""
    text = _templates.get_template(template).render(**values)
    # A name that is not UTF-8 was read with surrogates, which cannot be sent.
    return text.encode("utf-8", "replace").decode()


def fragment(template: str, **values: Any) -> Fragment:
    """Fill the template of a part of a page."""
    html = render(template, **values).strip()
    return Fragment(html, digest(html))


def page(template: str, status: int = 200, **values: Any) -> Response:
    """Answer with a page."""
    return Response(render(template, **values), status, media_type="text/html")
