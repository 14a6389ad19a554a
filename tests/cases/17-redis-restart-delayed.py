"""dramatiq #527: delayed jobs after Redis was killed and restarted.

Redis with an append-only file is killed (-9) and restarted while a worker is
connected and a delayed step and a delayed job wait.  Both must run when they
are due, not hours later.
"""

import signal
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
folder = tempfile.mkdtemp()


def start():
    process = subprocess.Popen(
        [
            "redis-server",
            "--port",
            str(PORT),
            "--bind",
            "127.0.0.1",
            "--dir",
            folder,
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
        ],
        stdout=subprocess.DEVNULL,
    )
    for _ in range(80):
        try:
            redis.Redis(port=PORT).ping()
            return process
        except redis.RedisError:
            time.sleep(0.1)
    raise SystemExit("no redis")


server = start()
broker = SidekiqBroker(url=f"redis://127.0.0.1:{PORT}/0")
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []


@dramatiq.actor(queue_name="python")
def note(x):
    ran.append((x, round(time.time() - t0, 1)))


t0 = time.time()
try:
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=1000)
    worker.start()
    note.send_with_options(args=("job",), delay=6000)
    Workflow(Chain(WithDelay(note.message("step"), 6000), note.message("after"))).run()
    time.sleep(1)
    server.send_signal(signal.SIGKILL)
    server.wait()
    time.sleep(2)
    server = start()
    while time.time() - t0 < 25 and len(ran) < 3:
        time.sleep(0.1)
    time.sleep(1)
    worker.stop()
    broker.close()
finally:
    server.terminate()
    server.wait()
print("ran:", ran)
ok = sorted(x for x, _ in ran) == ["after", "job", "step"] and all(at < 12 for _, at in ran)
print("PASS" if ok else "FAIL")
sys.exit(not ok)
