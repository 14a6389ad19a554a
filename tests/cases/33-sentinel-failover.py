"""dramatiq #628, bitnami/charts #1899: a failover by Sentinel under load.

Two servers and a Sentinel of its own.  A worker with
`client=Sentinel.master_for(...)` runs short jobs and chains; Sentinel fails
over.  Sending goes on after a while without a restart, the worker goes on with
the new master, and each job that was accepted by it after the failover runs.
(What the old master accepted last may be lost: Redis's own limit.)
"""

import os
import subprocess
import sys
import tempfile
import time

import dramatiq
import redis
from redis.sentinel import Sentinel

from dramatiq_sidekiq_flow import Chain, SidekiqBroker, Workflow, WorkflowMiddleware


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


A, B, S = free_port(), free_port(), free_port()  # never a server that is somebody else's
folder = tempfile.mkdtemp()


def server(port, *more):
    return subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder, *more],
        stdout=subprocess.DEVNULL,
    )


processes = [server(A)]
time.sleep(0.5)
processes.append(server(B, "--replicaof", "127.0.0.1", str(A)))
with open(f"{folder}/s.conf", "w") as f:
    f.write(
        f"port {S}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor m 127.0.0.1 {A} 1\nsentinel down-after-milliseconds m 1000\nsentinel failover-timeout m 5000\n"
    )
processes.append(subprocess.Popen(["redis-server", f"{folder}/s.conf", "--sentinel"], stdout=subprocess.DEVNULL))
time.sleep(13)
code = 1
try:
    sentinel = Sentinel([("127.0.0.1", S)], socket_timeout=1)
    broker = SidekiqBroker(client=sentinel.master_for("m", socket_timeout=3))
    broker.add_middleware(WorkflowMiddleware())
    dramatiq.set_broker(broker)
    ran = []

    @dramatiq.actor(queue_name="python")
    def note(x):
        ran.append(x)
        time.sleep(0.01)

    worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=1000)
    worker.start()
    for i in range(50):
        note.send(f"before{i}")
    time.sleep(2)
    print("before:", len(ran), "of 50; master:", sentinel.discover_master("m"))
    redis.Redis(port=S).execute_command("SENTINEL", "FAILOVER", "m")
    sent, errors, t0 = [], [], time.time()
    while time.time() - t0 < 12:
        try:
            note.send(f"during{len(sent)}")
            sent.append(time.time() - t0)
        except Exception as e:
            errors.append((round(time.time() - t0, 1), type(e).__name__))
        time.sleep(0.1)
    print(
        "master:",
        sentinel.discover_master("m"),
        "| sent:",
        len(sent),
        "| errors:",
        len(errors),
        errors[:1],
        errors[-1:],
    )
    Workflow(Chain(note.message("c1"), note.message("c2"))).run()
    note.send_with_options(args=("delayed",), delay=1000)
    time.sleep(6)
    during = [x for x in ran if x.startswith("during")]
    print(
        "ran of those sent during:",
        len(set(during)),
        "of",
        len(sent),
        "| twice:",
        len(during) - len(set(during)),
        "| after:",
        [x for x in ran if x in ("c1", "c2", "delayed")],
    )
    late = [f"during{i}" for i, at in enumerate(sent) if at > 8]
    ok = all(x in ran for x in late) and len(late) > 20 and all(x in ran for x in ("c1", "c2", "delayed"))
    print("PASS" if ok else "FAIL")
    code = not ok
finally:
    for p in processes:
        p.kill()
        p.wait()
sys.stdout.flush()
os._exit(code)
