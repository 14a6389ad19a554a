"""dramatiq #162, gunicorn #1621: gunicorn --preload, with sync and with gevent workers.

The application and its broker are imported in the parent, four workers are
forked, and each request sends a job.  The job of each of 200 requests that
were answered must be in the queue.  Needs gunicorn and gevent.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import redis

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
folder = os.environ.get("TMPDIR", "/tmp")
with open(os.path.join(folder, "case35_app.py"), "w") as file:
    file.write(f"""
import dramatiq
from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

broker = SidekiqBroker(url={URL!r})
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python")
def note(x):
    pass


note.send("from the parent")


def application(environ, start_response):
    note.send(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
""")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def requests(port, count):
    def request(number):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}", timeout=30) as response:
                return response.status == 200
        except OSError:
            return False

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(request, range(count)))


def up(port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("FAIL: the server did not start")


failed = False
for kind in ("sync", "gevent"):
    client.flushdb()
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "--workers",
        "4",
        "--worker-class",
        kind,
        "--graceful-timeout",
        "3",
    ]
    server = subprocess.Popen(
        [*command, "--bind", f"127.0.0.1:{port}", "--log-level", "warning", "case35_app:application"], cwd=folder
    )
    try:
        up(port)
        answered = requests(port, 200)
        there = client.llen("queue:python") - 1
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    print(f"{kind}: {answered} answered, {there} jobs in the queue")
    failed = failed or answered != 200 or there != 200
print("FAIL: a request was answered, and its job is nowhere" if failed else "PASS")
sys.exit(failed)
