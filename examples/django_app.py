"""A Django application in one file that starts a workflow in a request and shows its progress.

    python examples/django_app.py

This starts an embedded server, the web server and a worker, sends a request,
watches the run, and exits 0 when it is finished. (To install Django:
`pip install 'dramatiq-sidekiq-flow[embedded,examples]'`.) To use a Redis of your
own, run each command in a terminal:

    python django_app.py runserver
    dramatiq django_app

In a project with the usual layout, define the broker in a module that is passed to
`dramatiq` and that an AppConfig's `ready()` imports, so that the broker is set
before the first actor is declared. Nothing else differs.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import django
import dramatiq
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    RedisHashMemory,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
    current_run,
)

HERE = Path(__file__).parent

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        ROOT_URLCONF="django_app",
        # For this demo only.
        SECRET_KEY="not a secret",
        REDIS_URL=os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
    )
    django.setup()
    # With `python django_app.py`, this module is `__main__`. Keep ROOT_URLCONF from loading it again.
    sys.modules.setdefault("django_app", sys.modules[__name__])

memory = RedisHashMemory()
broker = SidekiqBroker(url=settings.REDIS_URL)
broker.add_middleware(WorkflowMiddleware(memory=memory))
dramatiq.set_broker(broker)


# -- the steps: each returns values for the next ones, kept in the run's memory --------


def recall(*names: str) -> Any:
    run = current_run()
    return run.memory.read(*names)


@dramatiq.actor(queue_name="orders")
def price(items: list[dict[str, Any]]) -> dict[str, int]:
    return {"cents": sum(item["cents"] * item["count"] for item in items)}


@dramatiq.actor(queue_name="orders")
def tax() -> dict[str, int]:
    return {"tax": recall("cents")["cents"] * 20 // 100}


@dramatiq.actor(queue_name="orders")
def shipping() -> dict[str, int]:
    return {"shipping": 0 if recall("cents")["cents"] >= 5_000 else 490}


@dramatiq.actor(queue_name="orders")
def total() -> dict[str, int]:
    return {"total": sum(recall("cents", "tax", "shipping").values())}


#: The keys in the memory show which steps are done.
STEPS = ("cents", "tax", "shipping", "total")


# -- the application --------------------------------------------------------------------


@require_POST
def orders(request: HttpRequest) -> JsonResponse:
    items = json.loads(request.body)["items"]
    # Inside a transaction, use transaction.on_commit(workflow.run), so that no
    # step reads uncommitted data.
    tree = Chain(price.message(items), Group(tax.message(), shipping.message()), total.message())
    return JsonResponse({"run_id": Workflow(tree).run()}, status=202)


@require_GET
def progress(request: HttpRequest, run_id: str) -> JsonResponse:
    found = memory.read(run_id)
    return JsonResponse(
        {"done": [step for step in STEPS if step in found], "of": len(STEPS), "total": found.get("total")}
    )


urlpatterns = [path("orders", orders), path("runs/<str:run_id>", progress)]


# -- one command that starts all processes ----------------------------------------------


def call(url: str, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.status, json.loads(answer.read())


def main() -> int:
    from dramatiq_sidekiq_flow.embedded import EmbeddedServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with EmbeddedServer() as server:
        environment = {**os.environ, "REDIS_URL": server.url}
        web = [sys.executable, str(HERE / "django_app.py"), "runserver", "--noreload", address]
        worker = [sys.executable, "-m", "dramatiq", "django_app", "--path", str(HERE), "--processes", "1"]
        running = [
            subprocess.Popen(web, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
            subprocess.Popen(worker, env=environment),
        ]
        deadline = time.monotonic() + 60
        try:
            order = {"items": [{"cents": 1_250, "count": 2}, {"cents": 700, "count": 1}]}
            while True:
                try:
                    status, answer = call(f"http://{address}/orders", order)
                    break
                except urllib.error.HTTPError:
                    raise
                except urllib.error.URLError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
            run_id = answer["run_id"]
            print(f"POST /orders           {status} {answer}", flush=True)
            seen = None
            while time.monotonic() < deadline:
                status, now = call(f"http://{address}/runs/{run_id}")
                if now != seen:
                    print(f"GET /runs/{run_id[:8]}...  {status} {now}", flush=True)
                    seen = now
                if now["total"] is not None:
                    break
                time.sleep(0.01)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    good = seen == {"done": list(STEPS), "of": 4, "total": 3_200 + 640 + 490}
    print("OK: the run is finished." if good else f"WRONG: {seen}")
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        execute_from_command_line(sys.argv)
    else:
        sys.exit(main())
