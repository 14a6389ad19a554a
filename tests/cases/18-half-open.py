"""modelq PR 16, kodiak PR 861, vibetuner #1935, dramatiq #894: connections that die without a word.

A NAT or a failed host drops the TCP connections: nothing arrives any more, no
RST either.  New connections work.  An idle worker must notice by itself and
go on within a minute.
"""

import os
import socket
import sys
import threading
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
port = client.connection_pool.connection_kwargs["port"]
db = URL.rpartition("/")[2]
frozen = set()
pairs = []
listener = socket.create_server(("127.0.0.1", 0))


def pump(a, b):
    while True:
        try:
            data = a.recv(65536)
        except OSError:
            return
        if id(a) in frozen:
            if not data:
                return
            continue
        if not data:
            b.close()
            return
        try:
            b.sendall(data)
        except OSError:
            return


def accept():
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        pairs.append((near, far))
        for x, y in ((near, far), (far, near)):
            threading.Thread(target=pump, args=(x, y), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
broker = SidekiqBroker(url=f"redis://127.0.0.1:{listener.getsockname()[1]}/{db}")
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = []


@dramatiq.actor(queue_name="python")
def note(x):
    ran.append(x)


worker = dramatiq.Worker(broker, worker_threads=2)
worker.start()
time.sleep(2)
client.lpush("queue:python", '{"class":"note","args":["before"],"jid":"%s","queue":"python","retry":true}' % ("a" * 24))
time.sleep(3)
for near, far in pairs:
    frozen.update((id(near), id(far)))
t0 = time.time()
client.lpush("queue:python", '{"class":"note","args":["after"],"jid":"%s","queue":"python","retry":true}' % ("b" * 24))
while time.time() - t0 < 60 and "after" not in ran:
    time.sleep(0.2)
print("ran:", ran, f"after {time.time() - t0:.0f} s")
ok = "after" in ran
print("PASS" if ok else "FAIL: the worker hangs on dead connections")
sys.stdout.flush()
os._exit(not ok)
