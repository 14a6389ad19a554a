"""dramatiq #213, #505; sidekiq's poison pills: a job that kills its process each time (segfault, OOM killer).

Retries never see it.  It must stop after a few times, by name, in `dead`; the
jobs that merely waited in the same process (fetched, not begun) must run;
retried from there when fixed, its run must go on.
"""

import json
import os
import subprocess
import sys
import textwrap
import time

import redis

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
APP = textwrap.dedent(f"""
    import os, signal, dramatiq, redis
    from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware
    broker = SidekiqBroker(url={URL!r}, heartbeat_timeout=2000); broker.add_middleware(WorkflowMiddleware()); dramatiq.set_broker(broker)
    db = redis.Redis.from_url({URL!r})
    @dramatiq.actor(queue_name="python", max_retries=1)
    def killer():
        if db.get("fixed") is None:
            db.incr("killed"); os.kill(os.getpid(), signal.SIGKILL)
        db.incr("cured")
    @dramatiq.actor(queue_name="python")
    def good(number=0):
        import time
        db.sadd("begun", number); time.sleep(0.3); db.incr("good")
    def main():
        worker = dramatiq.Worker(broker, worker_threads=int(os.environ.get("CASE_THREADS", "8")), worker_timeout=100); worker.start()
        import time
        time.sleep(float(os.environ["RUN_FOR"])); worker.stop(); broker.close()
""")
folder = os.environ.get("TMPDIR", "/tmp") + "/case16"
os.makedirs(folder, exist_ok=True)
open(folder + "/case16_app.py", "w").write(APP)
sys.path.insert(0, folder)
import case16_app

from dramatiq_sidekiq_flow import Chain, Workflow

Workflow(Chain(case16_app.killer.message(), case16_app.good.message())).run()
for number in range(30):
    case16_app.good.send(number)


def run(seconds):
    env = {**os.environ, "RUN_FOR": str(seconds), "PYTHONPATH": folder + ":" + os.environ.get("PYTHONPATH", "")}
    return subprocess.run(
        [sys.executable, "-c", "import case16_app; case16_app.main()"], env=env, stderr=subprocess.DEVNULL, timeout=60
    ).returncode


codes = []
while len(codes) < 12 and codes[-2:] != [0, 0]:  # suspects may come back one at a time: two whole lives without a kill
    codes.append(run(6))
dead = client.zrange("dead", 0, -1)
names = [json.loads(m)["class"] for m in dead]
begun = {int(x) for x in client.smembers("begun")}
never = [m for m in dead if json.loads(m)["class"] == "good" and json.loads(m)["args"][0] not in begun]
print(
    "exit codes:",
    codes,
    "| killed",
    client.get("killed"),
    "times | dead:",
    {n: names.count(n) for n in names},
    "| good ran:",
    client.get("good"),
    "of 30",
)
ok = names == ["killer"] and client.get("good") == b"30" and int(client.get("killed")) <= 5
if not ok:
    print("dead, and never begun:", len(never), [json.loads(m)["error_message"][:60] for m in never[:1]])
if "killer" in names:
    before = int(client.get("good") or 0)
    m = dead[names.index("killer")]
    client.set("fixed", 1)
    client.zrem("dead", m)
    job = json.loads(m)
    client.lpush("queue:python", json.dumps({**job, "enqueued_at": time.time()}))
    run(4)
    print(
        "retried from dead: cured",
        client.get("cured"),
        "| its run went on:",
        int(client.get("good") or 0) == before + 1,
    )
    ok = ok and int(client.get("good") or 0) == before + 1
print(
    "PASS"
    if ok
    else f"FAIL: {names.count('good')} others are dead as poison pills, beside the one that kills; {len(never)} of them never began"
)
sys.exit(not ok)
