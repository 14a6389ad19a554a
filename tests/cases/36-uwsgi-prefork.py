"""dramatiq's troubleshooting page, uWSGI without lazy-apps: the application is imported before the fork.

As with gunicorn --preload: four processes, two threads each, each request sends
a job.  The job of each of 200 requests that were answered must be in the
queue.  Needs pyuwsgi.
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
client.flushdb()
folder = os.environ.get("TMPDIR", "/tmp")
with open(os.path.join(folder, "case36_app.py"), "w") as file:
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

with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]


def request(number):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}", timeout=30) as response:
            return response.status == 200
    except OSError:
        return False


options = ["--http-socket", f"127.0.0.1:{port}", "--module", "case36_app:application", "--pythonpath", folder]
options += ["--master", "--processes", "4", "--threads", "2", "--enable-threads", "--disable-logging", "--die-on-term"]
run = "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])"
server = subprocess.Popen([sys.executable, "-c", run, *options], cwd=folder, stderr=subprocess.DEVNULL)
try:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit("FAIL: the server did not start") from None
            time.sleep(0.1)
    with ThreadPoolExecutor(8) as pool:
        answered = sum(pool.map(request, range(200)))
    there = client.llen("queue:python") - 1
finally:
    server.send_signal(signal.SIGTERM)
    server.wait(30)
print(f"{answered} answered, {there} jobs in the queue")
if answered != 200 or there != 200:
    print("FAIL: a request was answered, and its job is nowhere")
    sys.exit(1)
print("PASS")
