"""The web page of runs in a FastAPI application, for those who have logged in.

    python examples/mounted_fastapi.py

This starts an embedded server and the web server, starts a run, opens its page
without and with a login, and exits 0. (To install what it needs:
`pip install 'dramatiq-sidekiq-flow[embedded,examples]'`.) On a Redis of your own:

    uvicorn mounted_fastapi:app
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import dramatiq
from fastapi import FastAPI, Response
from starlette.requests import HTTPConnection

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.web import RunsApp

broker = SidekiqBroker(url=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="documents")
def clean(text: str) -> None: ...


#: Tokens of those who have logged in. Your application has its own way.
sessions: set[str] = set()


app = FastAPI()


@app.post("/documents")
def start() -> str:
    tree = Chain(clean.message("a"), clean.message("b"))
    return Workflow(tree, tags=["example"]).run()


@app.post("/login")
def log_in(response: Response) -> str:
    token = secrets.token_urlsafe()
    sessions.add(token)
    response.set_cookie("session", token, httponly=True)
    return "Welcome."


def is_logged_in(request: HTTPConnection) -> bool:
    return request.cookies.get("session") in sessions


# Dependencies of FastAPI do not count for what is mounted: authorize= does.
app.mount("/flow", RunsApp(broker, authorize=is_logged_in))


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
    print("OK: the page is there for those who have logged in." if good else f"WRONG: {known.text}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
