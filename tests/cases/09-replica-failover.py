"""dramatiq #628, 8Knot #361, rdv-service-public #3469: the server becomes a replica under a running worker.

A failover turns the server into a read-only replica for some seconds
(blocked clients are thrown out with UNBLOCKED, writes answered with READONLY)
and back.  The worker must go on by itself; a step that was done meanwhile is
acknowledged without running again, and what follows starts once.
Uses a server of its own, since REPLICAOF is the server's.
"""

import subprocess
import sys
import tempfile
import threading
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


PORT = free_port()
server = subprocess.Popen(
    ["redis-server", "--port", str(PORT), "--save", "", "--bind", "127.0.0.1", "--dir", tempfile.mkdtemp()],
    stdout=subprocess.DEVNULL,
)
URL = f"redis://127.0.0.1:{PORT}/0"
client = redis.Redis.from_url(URL)
for _ in range(50):
    try:
        client.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.1)
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []
go = threading.Event()
begun = threading.Event()


@dramatiq.actor(queue_name="python", max_retries=0)
def step():
    ran.append("step")
    begun.set()
    go.wait(20)


@dramatiq.actor(queue_name="python")
def after():
    ran.append("after")


try:
    worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=1000)
    worker.start()
    Workflow(Chain(step.message(), after.message())).run()
    begun.wait(10)
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    go.set()
    time.sleep(6)
    try:
        client.execute_command("REPLICAOF", "NO", "ONE")
    except redis.RedisError:
        client.execute_command("REPLICAOF", "NO", "ONE")
    deadline = time.time() + 20
    while time.time() < deadline and "after" not in ran:
        time.sleep(0.1)
    time.sleep(2)
    worker.stop()
    broker.close()
    state = (client.zcard("dead"), client.zcard("retry"), client.llen("queue:python"))
finally:
    server.terminate()
    server.wait()
print("ran:", ran, "| dead, retry, queue:", state)
if ran != ["step", "after"] or any(state):
    print("FAIL")
    sys.exit(1)
print("PASS")
