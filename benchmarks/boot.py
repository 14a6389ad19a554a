"""What it costs to import a contender, and the memory of a worker that has nothing to do."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile

from .measures import Figures, Scene
from .peers import PythonPeer
from .pipes import ROOT

#: Processes of a sample; the least counts.  The first one of a run may write the bytecode, and is never the least.
PROCESSES = 3

#: Imports the contender first, so that nothing else has loaded what it needs.
PROGRAM = """
import sys, time
url = sys.argv[1]
began = time.process_time()
import dramatiq
{boot}
ended = time.process_time()

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
    """CPU time of the imports, in milliseconds, and resident memory in MB of an idle worker with 8 threads."""
    assert isinstance(scene.peer, PythonPeer)
    program = PROGRAM.format(boot=scene.peer.boot)
    found = [_run(program, scene.url) for _ in range(PROCESSES)]
    return {
        "import": min(sample["import"] for sample in found) * 1000,
        "rss": min(sample["rss"] for sample in found),
    }


def _run(program: str, url: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", program, url],
        cwd=ROOT,
        env=_environment(_bytecode()),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    sample: dict[str, float] = json.loads(done.stdout)
    return sample


@functools.cache
def _bytecode() -> str:
    """Make a folder for the bytecode of all contenders, which lives as long as this run."""
    folder = tempfile.mkdtemp(prefix="bytecode-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _environment(folder: str) -> dict[str, str]:
    """Read and write bytecode, as installed packages do.

    Otherwise a checkout, or ``PYTHONDONTWRITEBYTECODE``, compiles this package in
    each process, and compares it with peers that were compiled when they were installed.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment
