"""dramatiq #431, #403, #602: the command `dramatiq-gevent`.

Two processes of `dramatiq-gevent` with many green threads: each of 60 delayed
and 200 plain jobs must run once, a chain must run in order, and TERM must
end the command within its timeout with nothing left in flight.  Needs gevent.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time

import redis

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
folder = os.environ.get("TMPDIR", "/tmp") + "/case29"
os.makedirs(folder, exist_ok=True)
open(folder + "/case29_app.py", "w").write(
    textwrap.dedent(f"""
    import time, dramatiq, redis
    from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware
    broker = SidekiqBroker(url={URL!r}, heartbeat_timeout=5000); broker.add_middleware(WorkflowMiddleware()); dramatiq.set_broker(broker)
    db = redis.Redis.from_url({URL!r})
    @dramatiq.actor(queue_name="python")
    def note(x): time.sleep(0.05); db.rpush("ran", x)
    @dramatiq.actor(queue_name="python", time_limit=2000, max_retries=0)
    def slow(): time.sleep(30); db.rpush("ran", "slow to its end")
""")
)
sys.path.insert(0, folder)
import case29_app as app

from dramatiq_sidekiq_flow import Chain, Group, Workflow

command = [
    os.path.join(os.path.dirname(sys.executable), "dramatiq-gevent"),
    "case29_app",
    "-p",
    "2",
    "-t",
    "50",
    "-Q",
    "python",
]
log = open(folder + "/log", "w")
p = subprocess.Popen(
    command,
    cwd=folder,
    env={**os.environ, "PYTHONPATH": folder + ":" + os.environ.get("PYTHONPATH", "")},
    stdout=log,
    stderr=log,
)
time.sleep(3)
for i in range(200):
    app.note.send(f"p{i}")
for i in range(60):
    app.note.send_with_options(args=(f"d{i}",), delay=1500)
Workflow(
    Chain(app.note.message("c1"), Group(app.note.message("c2"), app.note.message("c2")), app.note.message("c3"))
).run()
app.slow.send()
deadline = time.time() + 20
while time.time() < deadline and client.llen("ran") < 264:
    time.sleep(0.1)
time.sleep(4)
busy = client.smembers("processes")
dead = client.zcard("dead")
t0 = time.time()
p.send_signal(signal.SIGTERM)
try:
    p.wait(30)
except subprocess.TimeoutExpired:
    p.kill()
    p.wait()
ran = [x.decode() for x in client.lrange("ran", 0, -1)]
flight = sum(client.hlen(k) for k in client.scan_iter("swf:inflight:*"))
chain = [x for x in ran if x[0] == "c"]
print(
    "ran:",
    len(ran),
    "twice:",
    len(ran) - len(set(ran)) - 1,
    "| chain:",
    chain,
    "| processes shown:",
    len(busy),
    "| dead (time limit):",
    dead,
    f"| ended after {time.time() - t0:.0f} s, code {p.returncode} | in flight: {flight}",
)
ok = len(ran) == 264 and len(set(ran)) == 263 and chain == ["c1", "c2", "c2", "c3"] and not flight and len(busy) == 2
print("PASS" if ok else "FAIL")
sys.exit(not ok)
