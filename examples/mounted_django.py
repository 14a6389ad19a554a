"""The web page of runs beside a Django application, for its staff.

    python examples/mounted_django.py

This starts an embedded server and the web server, starts a run, opens its page
without and with a login, and exits 0. (To install what it needs:
`pip install 'dramatiq-sidekiq-flow[embedded,examples]'`.) On a Redis of your own:

    uvicorn mounted_django:app

Django itself mounts no ASGI applications: a router in `asgi.py` does, in front of
it. With sessions in the database, let `is_staff` be a coroutine that awaits
`sync_to_async(...)`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import django
import dramatiq
from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.web import RunsApp

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        ROOT_URLCONF=__name__,
        # For this demo only.
        SECRET_KEY="not a secret",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    )
    django.setup()

broker = SidekiqBroker(url=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="documents")
def clean(text: str) -> None: ...


@csrf_exempt  # For this demo only.
def start(_: HttpRequest) -> HttpResponse:
    tree = Chain(clean.message("a"), clean.message("b"))
    return HttpResponse(Workflow(tree, tags=["example"]).run())


@csrf_exempt  # For this demo only.
def log_in(request: HttpRequest) -> HttpResponse:
    # Your application checks a password, and remembers a user.
    request.session["is_staff"] = True
    return HttpResponse("Welcome.")


urlpatterns = [path("documents", start), path("login", log_in)]


# -- asgi.py ------------------------------------------------------------------------


def is_staff(request: HTTPConnection) -> bool:
    session = SessionStore(request.cookies.get(settings.SESSION_COOKIE_NAME))
    return session.get("is_staff") is True


app = Starlette(
    routes=[
        Mount("/flow", RunsApp(broker, authorize=is_staff)),
        Mount("/", get_asgi_application()),
    ]
)


def main() -> int:
    import httpx

    from dramatiq_sidekiq_flow.embedded import EmbeddedServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with EmbeddedServer() as server:
        command = [sys.executable, "-m", "uvicorn", f"{Path(__file__).stem}:app", "--port", str(port)]
        environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(Path(__file__).parent)}
        web = subprocess.Popen([*command, "--log-level", "warning"], env=environment)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        run_id = client.post("/documents").raise_for_status().text.strip('"')
                        break
                    except httpx.ConnectError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.05)
                stranger = client.get(f"/flow/runs/{run_id}")
                client.post("/login").raise_for_status()
                known = client.get(f"/flow/runs/{run_id}")
                listed = client.get("/flow/?tag=example")
        finally:
            web.terminate()
            web.wait()
    print(f"GET /flow/runs/{run_id[:8]}...  {stranger.status_code} without a login, {known.status_code} with it")
    good = (stranger.status_code, known.status_code) == (403, 200)
    good = good and "0 of 2" in known.text and f'href="/flow/runs/{run_id}"' in listed.text
    print("OK: the page is there for its staff." if good else f"WRONG: {known.text}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
