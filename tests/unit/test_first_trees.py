"""The first trees of a process are read by several threads at the same time."""

from __future__ import annotations

import subprocess
import sys

READ = """
import sys, threading
from dramatiq_sidekiq_flow.wire.callbacks import load_stack

sys.setswitchinterval(1e-6)
barrier = threading.Barrier(8)

def read(n):
    job = {"__type__": "job", "class": "after", "args": [n]}
    tree = {"__type__": "chain", "children": [{"__type__": "group", "children": [job, job]}, job]}
    barrier.wait()
    load_stack([[f"00000000-0000-0000-0000-00000000000{n}", tree, False]])

threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_threads_read_their_first_trees_together() -> None:
    """msgspec crashes if two threads prepare a schema: in half of the processes."""
    for _ in range(6):
        subprocess.run([sys.executable, "-c", READ], check=True, timeout=60)
