"""The next job of a chain, which the thread that finished the step before runs at once.

The worker offers a receipt with the acknowledgement, and the script that would push
the job takes it into flight under this receipt: a step then costs one round trip,
and no other thread or process is woken.
"""

from __future__ import annotations

from .dramatiq_internals import can_run_next
from .message import SidekiqMessage
from .worker_process import WorkerProcess


def offer(process: WorkerProcess, message: SidekiqMessage) -> str:
    """Get the receipt under which this thread takes the next job of a queue; "" if it is not free for one.

    The same again for a message whose acknowledgement is repeated: the first try may
    have taken the job.

    Parameters:
      message: The finished step, of the same queue.
    """
    if message.offer or not _is_free(process, message):
        return message.offer
    message.offer = process.in_flight[message.queue_name].offer()
    return message.offer


def _is_free(process: WorkerProcess, message: SidekiqMessage) -> bool:
    """Return True if no other job has to wait when this thread runs the next one."""
    if message.alone:
        # It was handed over, so its own thread has gone on.
        return False
    held = process.in_flight.get(message.queue_name)
    if held is None or held.member != message.member or held.fetched or process.quiet:
        return False
    return can_run_next(message.queue_name) and process.may_fetch(message.queue_name)
