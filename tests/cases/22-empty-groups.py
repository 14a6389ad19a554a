"""celery #9772, #4333, #3756: groups made by a comprehension that came out empty.

Empty groups and chains at the head, in the middle, at the end, beside each
other, inside a group's child, with a delay, and only those.  What follows
must run once, in order, whatever was empty.
"""

import os
import sys
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
broker = SidekiqBroker(url=URL, poll_interval=200)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
ran = {}


@dramatiq.actor(queue_name="python")
def n(case, x):
    ran.setdefault(case, []).append(x)


def m(case):
    return lambda x: n.message(case, x)


CASES = {
    "head": (lambda t: Chain(Group(), t(1)), [1]),
    "middle": (lambda t: Chain(t(1), Group(), t(2)), [1, 2]),
    "end of a group in a chain": (lambda t: Chain(Group(t(1), Group(), Chain()), t(2)), [1, 2]),
    "two beside each other": (lambda t: Chain(Group(t(1)), Group(), Group(), t(2)), [1, 2]),
    "a child that is a chain of empty groups": (lambda t: Chain(Group(Chain(Group(), Group()), t(1)), t(2)), [1, 2]),
    "group of nothing but empty": (lambda t: Chain(Group(Group(), Chain(Group(), Chain())), t(1)), [1]),
    "delayed empty in the middle": (lambda t: Chain(t(1), WithDelay(Group(), 500), t(2)), [1, 2]),
    "delayed empty child": (lambda t: Chain(Group(WithDelay(Chain(), 500), t(1)), t(2)), [1, 2]),
    "delayed chain whose first is empty": (lambda t: Chain(WithDelay(Chain(Group(), t(1)), 500), t(2)), [1, 2]),
    "group in chain in group in chain": (
        lambda t: Chain(t(1), Group(Chain(t(2), Group(), Group(Chain(Group(), t(3))))), t(4)),
        [1, 2, 3, 4],
    ),
}
worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=100)
worker.start()
for case, (tree, _) in CASES.items():
    Workflow(tree(m(case))).run()
Workflow(Chain(Group(), Chain())).run()
Workflow(WithDelay(Group(), 300)).run()
deadline = time.time() + 15
while time.time() < deadline and sum(map(len, ran.values())) < sum(len(e) for _, e in CASES.values()):
    time.sleep(0.05)
time.sleep(1.5)
left = client.zcard("dead") + client.zcard("retry") + client.zcard("schedule")
worker.stop()
broker.close()
bad = {case: ran.get(case) for case, (_, expected) in CASES.items() if ran.get(case) != expected}
print("bad:", bad, "| left:", left)
print("FAIL" if bad or left else "PASS")
sys.exit(bool(bad or left))
