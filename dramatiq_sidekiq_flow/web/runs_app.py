"""ASGI application of the pages: addresses, answers, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import dramatiq
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import FlowError, InvalidFilter, UnknownRun
from ..runs import Runs
from ..store.faults import FAULTS
from ..workflow.workflow import global_broker
from .access import Access, Authorize, Credentials
from .event_stream import EventStream
from .feeds import Feeds, Shown
from .form_check import checked_form, keep_token, token_of
from .list_page import RunList, list_query, list_values
from .rendering import STATIC, Links, fragment, page
from .run_actions import find_action
from .run_page import RunPage, run_key
from .security_headers import with_security
from .shared_reads import SharedReads
from .step_page import step_query

#: The files that pages load.
FILES = ("runs.css", "runs.js")


class RunsApp:
    """Web pages of the runs of a broker: an ASGI application, alone or mounted in another one.

    Parameters:
      broker: As for ``Runs``; the global broker by default.
      authorize: Called with each request, a ``starlette.requests.HTTPConnection``; may be a coroutine. Only
        ``True`` lets it see, and steer, the runs.
      credentials: Name and password, asked for with HTTP Basic.
      hosts: The only names of the server (header ``Host``, without port) that are answered.
      read_only: True leaves out the buttons, and refuses what they send.

    With neither ``authorize`` nor ``credentials``, only browsers of this machine are answered, under the names
    ``localhost``, ``127.0.0.1`` and ``[::1]``.

    Raises:
      ConfigurationError: if the broker cannot run workflows.
    """

    def __init__(
        self,
        broker: dramatiq.Broker | None = None,
        *,
        authorize: Authorize | None = None,
        credentials: tuple[str, str] | None = None,
        hosts: Collection[str] = (),
        read_only: bool = False,
    ) -> None:
        known = Credentials(*credentials) if credentials else None
        self._access = Access(authorize, known, frozenset(host.lower() for host in hosts))
        self._pages = _Pages(broker or global_broker(), read_only)
        self._app: ASGIApp = Starlette(routes=self._pages.routes(), exception_handlers=_HANDLERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = await self._access.refusal(HTTPConnection(scope))
        await (refusal or self._app)(scope, receive, with_security(send))


class _Pages:
    """The answers."""

    def __init__(self, broker: dramatiq.Broker, read_only: bool) -> None:
        self.runs = Runs(broker)
        self.reads = SharedReads()
        self.feeds = Feeds()
        self.list = RunList(broker, self.runs, self.reads)
        self.run = RunPage(self.runs, self.reads, read_only)
        self.read_only = read_only

    def routes(self) -> list[Route]:
        return [
            Route("/", self.show_list),
            Route("/runs/{run_id:path}", self.show_run),
            Route("/events/list", self.list_events),
            Route("/events/runs/{run_id:path}", self.run_events),
            Route("/actions/{action}/{run_id:path}", self.act, methods=["POST"]),
            Route("/static/{name}", show_file),
        ]

    async def show_list(self, request: Request) -> Response:
        query, links = list_query(request.query_params), links_of(request)
        if query.id and await self.list.is_id(query.id):
            return RedirectResponse(links.run(query.id), 303)
        shown = await self.list.look(query, links)
        return page("list.html", links=links, fragments=shown.fragments, **list_values(query, links))

    async def show_run(self, request: Request) -> Response:
        run_id, query, links = request.path_params["run_id"], step_query(request.query_params), links_of(request)
        shown = await self.run.look(run_id, query, links)
        events = links.run_events(run_id, **query.parameters())
        token = token_of(request)
        values = {"links": links, "fragments": shown.fragments, "run_id": run_id, "events": events, "token": token}
        answer = page("run.html", **values)
        keep_token(request, answer, token)
        return answer

    async def list_events(self, request: Request) -> EventStream:
        query, links = list_query(request.query_params), links_of(request)
        return self._stream((query, links), lambda: self.list.look(query, links))

    async def run_events(self, request: Request) -> EventStream:
        run_id, query, links = request.path_params["run_id"], step_query(request.query_params), links_of(request)
        return self._stream((run_id, query, links), lambda: self.run.look(run_id, query, links))

    def _stream(self, key: tuple[object, ...], look: Callable[[], Awaitable[Shown]]) -> EventStream:
        return EventStream(self.feeds, (asyncio.get_running_loop(), key), lambda: _unbroken(look))

    async def act(self, request: Request) -> Response:
        form = await checked_form(request)
        action = find_action(request.path_params["action"])
        if action is None or self.read_only:
            raise HTTPException(404, "There is no such action here.")
        run_id = request.path_params["run_id"]
        try:
            await asyncio.to_thread(action.act, self.runs, run_id, form)
        finally:
            self.reads.forget(run_key(run_id))
        return RedirectResponse(links_of(request).run(run_id), 303)


async def _unbroken(look: Callable[[], Awaitable[Shown]]) -> Shown:
    """Look; a problem is shown on the page, which is looked at again."""
    try:
        shown = await look()
    except (FlowError, *FAULTS) as e:
        return Shown({"problem": fragment("part_problem.html", problem=_problem_of(e)[1])}, is_quiet=True)
    problem = fragment("part_problem.html", problem=None)
    return Shown({**shown.fragments, "problem": problem}, shown.is_quiet)


async def show_file(request: Request) -> Response:
    """Answer with a file; its address changes with its content."""
    name = request.path_params["name"]
    if name not in FILES:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(STATIC / name, headers={"cache-control": "private, max-age=31536000, immutable"})


def links_of(request: HTTPConnection) -> Links:
    """The addresses of the pages, as this browser sees them."""
    return Links(request.scope.get("root_path", "").rstrip("/"))


# -- errors -------------------------------------------------------------------------


def _problem_of(error: Exception) -> tuple[int, str]:
    """Status and text of an error."""
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    if isinstance(error, UnknownRun):
        return 404, str(error)
    if isinstance(error, InvalidFilter):
        return 400, str(error)
    if isinstance(error, FlowError):
        return 409, str(error)
    return 503, f"Redis cannot be read: {type(error).__name__}: {error}"


async def _show_problem(request: Request, error: Exception) -> Response:
    status, text = _problem_of(error)
    return page("problem.html", status, links=links_of(request), title=str(status), problem=text)


_HANDLERS: dict[Any, Any] = dict.fromkeys((HTTPException, FlowError, *FAULTS), _show_problem)
