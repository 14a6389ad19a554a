"""Recovers the jobs of workers that died, one worker and one job at a time.

Jobs that had not begun go back to their queue.  Jobs that had are counted; the
second time, a job is a suspect: it stays in the dead worker's hash until a
live process tries it while no other suspect runs.  So only the job that kills
its process ends in ``dead`` (``recover.lua``, ``trial.lua``).

A record that cannot be recovered is left in place and logged once: it must not
prevent the recovery of others.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from dramatiq.logging import get_logger

from ..errors import PayloadError, PoisonPill
from ..store import keys, processes, workers
from ..store.connection import LOST, Connection
from ..wire import codec
from ..wire.payload import Payload, buried, failed, fingerprint
from .events import Events, Recovered
from .upkeep import Upkeep

#: Jobs recovered by one script.
BATCH = 50

#: Pages of dead workers (:data:`workers.DEAD_AT_ONCE` each) that one beat looks at.
PAGES = 10

#: Seconds until the recovery of a dead worker is tried again after an error.
AGAIN = 60.0

#: Maximum number of problems that are logged after one beat.
MAX_LINES = 10


class Trials(Protocol):
    """Runs the suspects of one queue in this process; see ``broker.in_flight``."""

    queue_name: str
    member: str

    def trial_base(self) -> str: ...
    def add_trial(self, payload: bytes) -> None: ...
    def end_trial(self) -> None: ...


class Recovery:
    """Recovers dead workers in one process.

    Parameters:
      timeout: Seconds without a beat after which a worker is dead.
    """

    def __init__(self, *, connection: Connection, timeout: float, events: Events, upkeep: Upkeep) -> None:
        self.logger = get_logger(__name__, type(self))
        self.connection = connection
        self.timeout = timeout
        self.events = events
        self.upkeep = upkeep
        #: By queue: suspects of these queues are tried here.
        self.trials: Mapping[str, Trials] = {}
        #: Whether this process begins no new jobs.
        self.is_quiet: Callable[[], bool] = lambda: False
        #: Sends acknowledgements that wait: a trial has ended when it has left flight.
        self.flush: Callable[[], None] = lambda: None
        # Beats come from the heartbeat's thread, and from consumers that were declared dead.
        self._lock = threading.RLock()
        self._skip = 0
        #: Queue -> dead members that hold suspects.
        self._suspects: dict[str, set[str]] = defaultdict(set)
        #: Problems that were logged; member -> monotonic time of the next try.
        self._logged: set[tuple[bytes, str]] = set()
        self._again: dict[bytes, float] = {}
        self._troubles: list[str] = []

    def recover_all(self, dead: Sequence[bytes]) -> None:
        """Recover dead workers: those that a beat has named, and the pages after them."""
        with self._lock:
            self._suspects.clear()
            try:
                self._recover_pages(dead)
                self.try_suspects()
            finally:
                self._log_troubles()

    def _recover_pages(self, dead: Sequence[bytes]) -> None:
        if self._skip:
            # The first page was seen; the beat names it again.
            self._recover_page(dead)
            dead = workers.beat(self.connection, {}, self.timeout, skip=self._skip).dead
        for _ in range(PAGES):
            stayed = self._recover_page(dead)
            if len(dead) < workers.DEAD_AT_ONCE:
                self._skip = 0
                break
            self._skip += stayed
            dead = workers.beat(self.connection, {}, self.timeout, skip=self._skip).dead

    def _recover_page(self, dead: Sequence[bytes]) -> int:
        """Recover one page of workers; return the number of those that stay registered."""
        stayed, now = 0, time.monotonic()
        for raw in dead:
            gone = False
            if self._again.get(raw, 0.0) <= now:
                self._again.pop(raw, None)
                try:
                    gone = self.recover(_member(raw))
                except LOST:
                    raise
                except Exception as e:
                    self._again[raw] = now + AGAIN
                    self._log_once(raw, "", f"The dead worker {raw!r} cannot be recovered and is left as it is: {e}")
            stayed += not gone
        return stayed

    def recover(self, member: str) -> bool:
        """Put back the jobs that a dead worker had in flight.

        Returns:
          True if nothing is left in flight.

        Raises:
          WrongType: if its in-flight hash or its queue is of another type.
        """
        queue_name = keys.queue_of(member)
        receipts = workers.receipts(self.connection, member)
        others = [receipt for receipt in receipts if not _is_suspect(receipt)]
        # What is pushed last is taken next.
        others.sort(key=keys.fetch_order, reverse=True)
        total = self._recover_all_of(member, others)
        if total is None:
            return False
        self._report(member, queue_name, total)
        has_suspects = len(others) < len(receipts) or total.waiting > 0
        if has_suspects:
            self._suspects[queue_name].add(member)
        return not (has_suspects or total.kept)

    def _recover_all_of(self, member: str, receipts: Sequence[bytes]) -> workers.RecoveryResult | None:
        """Recover these jobs, a batch at a time; None if the worker turns out to be alive."""
        total = workers.RecoveryResult()
        # An empty batch deregisters the worker.
        for start in range(0, max(1, len(receipts)), BATCH):
            found = self._recover_batch(member, receipts[start : start + BATCH])
            if found is None:
                return None
            total = workers.RecoveryResult(
                total.back + found.back,
                total.waiting + found.waiting,
                total.dead + found.dead,
                total.kept + found.kept,
            )
        return total

    def _recover_batch(self, member: str, receipts: Sequence[bytes]) -> workers.RecoveryResult | None:
        queue_name, now = keys.queue_of(member), time.time()
        payloads = workers.payloads(self.connection, member, receipts) if receipts else []
        jobs = []
        for receipt, raw in zip(receipts, payloads):
            if raw is None:
                continue
            try:
                jobs.append(_in_flight_job(receipt, raw, queue_name, now))
            except Exception as e:
                self._log_once(
                    member.encode(),
                    repr(receipt),
                    f"Job {receipt!r} of the dead worker {member} cannot be recovered and stays in flight: {e}",
                )
        return workers.recover(self.connection, member, jobs, timeout=self.timeout, now=now)

    def _report(self, member: str, queue_name: str, total: workers.RecoveryResult) -> None:
        for job in total.kept:
            self._log_once(
                member.encode(), repr(job.receipt), f"Job {job.jid} has killed {workers.MAX_RECOVERIES} workers "
                "and stays in flight: the Redis key 'dead' is not a sorted set. Remove it."
            )  # fmt: skip
        for job in total.dead:
            if job.payload is not None:
                self.upkeep.handle(job.dead_payload)
        if total.back or total.dead or total.waiting:
            self._announce(member, queue_name, total)

    def _announce(self, member: str, queue_name: str, total: workers.RecoveryResult) -> None:
        """Log that jobs of a dead worker have left flight, notify listeners, and remove its record."""
        self.events.emit(Recovered(queue_name, total.back, len(total.dead)))
        # Its record would stand on the Busy page until it expires.
        processes.remove(self.connection, keys.identity_of(member))
        self.logger.warning(
            "Worker %s is dead: %d of its jobs are back in queue %r, %d are dead, %d run alone next.",
            member,
            total.back,
            queue_name,
            len(total.dead),
            total.waiting,
        )

    def try_suspects(self) -> None:
        """Take one suspect of each queue of this process, unless one runs already."""
        if self.is_quiet():
            return
        for queue_name, trials in list(self.trials.items()):
            for member in sorted(self._suspects.get(queue_name, ())):
                if self._try(member, trials):
                    break

    def _try(self, member: str, trials: Trials) -> bool:
        """Try one suspect of a dead worker; return True if a trial runs now."""
        try:
            found = workers.try_suspect(
                self.connection, member, trials.member, trials.trial_base(), timeout=self.timeout
            )
        except LOST:
            raise
        except Exception as e:
            self._log_once(member.encode(), "trial", f"No suspect of the dead worker {member} is tried: {e}")
            return False
        if isinstance(found, bytes):
            self.logger.info(
                "A job of queue %r that was in flight when workers died runs alone now.", trials.queue_name
            )
            trials.add_trial(found)
            return True
        trials.end_trial()
        if found is None:
            self._suspects[trials.queue_name].discard(member)
        return found is not None

    def after_trial(self) -> None:
        """A trial has ended here: the next one need not wait for a beat."""
        self.flush()
        with self._lock:
            self.try_suspects()
            self._log_troubles()

    def _log_once(self, member: bytes, what: str, text: str) -> None:
        if (member, what) not in self._logged:
            if len(self._logged) >= 10_000:
                self._logged.clear()
            self._logged.add((member, what))
            self._troubles.append(text)

    def _log_troubles(self) -> None:
        troubles, self._troubles = self._troubles, []
        for text in troubles[:MAX_LINES]:
            self.logger.error("%s", text)
        if len(troubles) > MAX_LINES:
            self.logger.error(
                "%d more lines were left out; the workers are in the Redis key %r.",
                len(troubles) - MAX_LINES,
                keys.WORKERS,
            )


def _is_suspect(receipt: bytes) -> bool:
    return receipt.endswith(keys.SUSPECT.encode())


def _member(raw: bytes) -> str:
    member = raw.decode()
    if not keys.is_member(member):
        raise ValueError("it is not of the form HOST:PID:NONCE:QUEUE")
    return member


def _in_flight_job(receipt: bytes, raw: bytes, queue_name: str, now: float) -> workers.InFlightJob:
    error = PoisonPill(
        f"The job had begun when its worker died, {workers.MAX_RECOVERIES} times within "
        f"{workers.RECOVERY_WINDOW // 3600} hours. Look for what kills the process, then retry it.",
        raw,
    )
    try:
        # The callback stack is not needed here, so it is not read from its storage.
        payload = Payload.decode(raw, lambda stored: None)
        dead_payload = codec.encode(failed(payload.fields, error, now=now, queue=queue_name))
        return workers.InFlightJob(receipt, payload.jid, dead_payload, payload)
    except PayloadError as e:
        return workers.InFlightJob(receipt, fingerprint(raw), buried(raw, e, now=now, queue=queue_name))
    except Exception:
        # Values that can be decoded but not encoded, such as infinite numbers.
        return workers.InFlightJob(receipt, fingerprint(raw), buried(raw, error, now=now, queue=queue_name))
