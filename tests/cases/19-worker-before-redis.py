"""dramatiq #10, #34: the worker starts before its Redis does (docker compose, a reboot, a failover).

The worker is started while nothing listens; Redis comes 4 s later.  From then
on it must do all that a worker does: run jobs, promote what is due in
`schedule` and `retry`, be seen on the Busy page, keep `queue_order`.
"""

import os
import subprocess
import sys
import tempfile
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


PORT = free_port()
late = "now" not in sys.argv  # `now`: the same with Redis up from the beginning


def start():
    return subprocess.Popen(
        ["redis-server", "--port", str(PORT), "--bind", "127.0.0.1", "--dir", tempfile.mkdtemp(), "--save", ""],
        stdout=subprocess.DEVNULL,
    )


server = None if late else start()
time.sleep(0 if late else 1)
client = redis.Redis(port=PORT)
broker = SidekiqBroker(url=f"redis://127.0.0.1:{PORT}/0", heartbeat_timeout=5000, queue_order=["python"])
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []
tries = []


@dramatiq.actor(queue_name="python")
def note(x):
    ran.append(x)


@dramatiq.actor(queue_name="python", max_retries=3, min_backoff=500, max_backoff=500)
def flaky():
    tries.append(1)
    if len(tries) == 1:
        raise ValueError("once")


worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=1000)
worker.start()
time.sleep(4)
server = server or start()
try:
    time.sleep(4)
    note.send("now")
    note.send_with_options(args=("later",), delay=1000)
    flaky.send()
    Workflow(Chain(WithDelay(note.message("step"), 1000), note.message("after"))).run()
    time.sleep(14)
    seen = client.smembers("processes")
    left = {name: client.zcard(name) for name in ("schedule", "retry")}
    order = type(worker.work_queue).__name__
    worker.stop()
    broker.close()
    # what a worker has that was started with Redis up
    again = SidekiqBroker(url=f"redis://127.0.0.1:{PORT}/0", queue_order=["python"])
    again.add_middleware(WorkflowMiddleware())
    dramatiq.actor(lambda x: None, broker=again, queue_name="python", actor_name="note")
    second = dramatiq.Worker(again, worker_threads=2, worker_timeout=1000)
    second.start()
    time.sleep(2)
    usual = type(second.work_queue).__name__
    second.stop()
    again.close()
finally:
    server.terminate()
    server.wait()
print(
    "ran:",
    sorted(ran),
    "| tries of flaky:",
    len(tries),
    "| left:",
    left,
    "| processes:",
    len(seen),
    "| work queue:",
    order,
    "in place of",
    usual,
)
bad = []
if sorted(ran) != ["after", "later", "now", "step"]:
    bad.append("what is scheduled is never promoted" if "now" in ran else "no job runs")
if len(tries) < 2:
    bad.append("what is in retry is never retried")
if not seen:
    bad.append("the process is not on the Busy page")
if order != usual:
    bad.append("queue_order is not kept")
print("FAIL: " + "; ".join(bad) if bad else "PASS")
sys.stdout.flush()
os._exit(bool(bad))
