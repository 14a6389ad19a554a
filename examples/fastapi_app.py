"""A FastAPI application that starts a workflow in a request and shows its progress.

    python examples/fastapi_app.py

This starts an embedded server, the web server and a worker, sends a request,
watches the run, and exits 0 when it is finished. (To install FastAPI, uvicorn and httpx:
`pip install 'dramatiq-sidekiq-flow[embedded,examples]'`.) To use a Redis of your
own, run each command in a terminal:

    uvicorn fastapi_app:app
    dramatiq fastapi_app
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dramatiq
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from dramatiq_sidekiq_flow import (
    Chain,
    Group,
    JobLogging,
    RedisHashMemory,
    SidekiqBroker,
    Workflow,
    WorkflowMiddleware,
    current_run,
)

memory = RedisHashMemory()
broker = SidekiqBroker(url=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
broker.add_middleware(WorkflowMiddleware(memory=memory))
broker.add_middleware(JobLogging())
dramatiq.set_broker(broker)


# -- the steps: each returns values for the next ones, kept in the run's memory --------


def recall(*names: str) -> Any:
    run = current_run()
    return run.memory.read(*names)


@dramatiq.actor(queue_name="documents")
def clean(text: str) -> dict[str, str]:
    return {"text": " ".join(text.split())}


@dramatiq.actor(queue_name="documents")
def count_words() -> dict[str, int]:
    return {"words": len(recall("text")["text"].split())}


@dramatiq.actor(queue_name="documents")
def count_letters() -> dict[str, int]:
    return {"letters": sum(map(str.isalpha, recall("text")["text"]))}


@dramatiq.actor(queue_name="documents")
def report() -> dict[str, str]:
    return {"report": "{words} words, {letters} letters".format(**recall("words", "letters"))}


#: The keys in the memory show which steps are done.
STEPS = ("text", "words", "letters", "report")


# -- the application --------------------------------------------------------------------

app = FastAPI()


class Document(BaseModel):
    text: str


# Plain functions: FastAPI runs them in threads, so they may block on Redis.
@app.post("/documents", status_code=202)
def start(document: Document) -> dict[str, str]:
    tree = Chain(clean.message(document.text), Group(count_words.message(), count_letters.message()), report.message())
    return {"run_id": Workflow(tree).run()}


@app.get("/runs/{run_id}")
def progress(run_id: str) -> dict[str, Any]:
    found = memory.read(run_id)
    if not found and not broker.connection.call("EXISTS", f"swf:run:{run_id}"):
        raise HTTPException(404, "no such run")
    return {"done": [step for step in STEPS if step in found], "of": len(STEPS), "report": found.get("report")}


# -- one command that starts all processes ----------------------------------------------


def main() -> int:
    import httpx

    from dramatiq_sidekiq_flow.embedded import EmbeddedServer

    here = str(Path(__file__).parent)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with EmbeddedServer() as server:
        environment = {**os.environ, "REDIS_URL": server.url}
        web = ["uvicorn", "fastapi_app:app", "--app-dir", here, "--port", str(port), "--log-level", "warning"]
        worker = ["dramatiq", "fastapi_app", "--path", here, "--processes", "1"]
        running = [subprocess.Popen([sys.executable, "-m", *command], env=environment) for command in (web, worker)]
        deadline = time.monotonic() + 60
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                while True:
                    try:
                        answer = client.post("/documents", json={"text": "  four  words of text "})
                        break
                    except httpx.ConnectError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.05)
                answer.raise_for_status()
                run_id = answer.json()["run_id"]
                print(f"POST /documents        {answer.status_code} {answer.json()}", flush=True)
                seen = None
                while time.monotonic() < deadline:
                    now = client.get(f"/runs/{run_id}").raise_for_status().json()
                    if now != seen:
                        print(f"GET /runs/{run_id[:8]}...  200 {now}", flush=True)
                        seen = now
                    if now["report"]:
                        break
                    time.sleep(0.01)
                unknown = client.get("/runs/nothing").status_code
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    good = seen == {"done": list(STEPS), "of": 4, "report": "4 words, 15 letters"} and unknown == 404
    print("OK: the run is finished." if good else f"WRONG: {seen}, and {unknown} for an unknown run")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
