"""dramatiq #162 (and its troubleshooting page), pika #1190, uWSGI's "lazy-apps": a server that preforks.

gunicorn --preload with sync workers, uWSGI without lazy-apps, or a
multiprocessing.Pool of fork: the application, with its broker, is imported in
the parent; each worker serves requests in its main thread and sends jobs.
Each job whose send() returned must be in the queue.  The parent itself sends
nothing (or one job, with `warm` as argument).
"""

import multiprocessing
import os
import sys

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="python")
def note(x):
    pass


if "warm" in sys.argv:
    note.send("warm")
fork = multiprocessing.get_context("fork")


def serve(worker):
    for request in range(25):
        note.send(f"{worker}-{request}")
    for request in range(25):
        note.send_with_options(args=(f"{worker}-{request}",), delay=60_000)


workers = [fork.Process(target=serve, args=(k,)) for k in range(4)]
for p in workers:
    p.start()
for p in workers:
    p.join(30)
now, later = client.llen("queue:python"), client.zcard("schedule")
print(
    "exit codes:",
    [p.exitcode for p in workers],
    f"| in the queue: {now} of {100 + ('warm' in sys.argv)} | scheduled: {later} of 100",
)
if now + later < 200 + ("warm" in sys.argv):
    print("FAIL: send() returned, and the job is nowhere")
    sys.exit(1)
print("PASS")
