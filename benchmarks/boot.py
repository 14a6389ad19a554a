"""The time to import a contender, and the memory of a worker that has nothing to do."""

from __future__ import annotations

import json
import subprocess
import sys

from .measures import Figures, Scene
from .peers import PythonPeer
from .pipes import ROOT

#: Processes of a sample; the fastest import counts, since only the machine slows one.
PROCESSES = 3

#: Imports the contender first, so that nothing else has loaded what it needs.
PROGRAM = """
import sys, time
url = sys.argv[1]
began = time.perf_counter()
import dramatiq
{boot}
ended = time.perf_counter()

@dramatiq.actor(broker=broker, queue_name="bench")
def step(index):
    pass

worker = dramatiq.Worker(broker, worker_threads=8)
worker.start()
time.sleep(0.7)
status = open("/proc/self/status").read()
rss = status.split("VmRSS:")[1].split()[0]
import json, os
print(json.dumps({{"import": ended - began, "rss": int(rss) / 1024}}), flush=True)
os._exit(0)
"""


def boot(scene: Scene) -> Figures:
    """Time of the imports, and resident memory of an idle worker with 8 threads."""
    assert isinstance(scene.peer, PythonPeer)
    program = PROGRAM.format(boot=scene.peer.boot)
    found = [_run(program, scene.url) for _ in range(PROCESSES)]
    return {
        "import": min(sample["import"] for sample in found) * 1000,
        "rss": min(sample["rss"] for sample in found),
    }


def _run(program: str, url: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", program, url], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    sample: dict[str, float] = json.loads(done.stdout)
    return sample
