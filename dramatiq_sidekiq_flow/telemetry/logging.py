"""Log lines for each job: its start and its outcome.

Sidekiq logs the same by default (``job_logger.rb``).  The field names and the
unit of ``elapsed`` are those of its JSON formatter, so that one query finds the
jobs of both languages.
"""

from __future__ import annotations

import logging
from typing import Any

from dramatiq.logging import get_logger

from .observer import JobExecution, JobObserver

_LEVELS = {"retry": logging.WARNING, "dead": logging.ERROR, "lost": logging.ERROR}


class JobLogging(JobObserver):
    """Log a line when a job starts, and one when it is acknowledged.

    Examples:

      >>> broker.add_middleware(JobLogging())

    The first word of the second line is ``done``, ``retry`` (it failed and
    will be retried), ``dead``, ``discard``, ``requeue``, ``skip``, or ``lost`` (its
    acknowledgement failed).  Dramatiq's own lines stay as they are.  If the
    level is off, no line is prepared.

    Each line has fields for a JSON formatter: ``jid``, ``class``, ``queue``,
    ``run_id`` (None outside of a workflow); at the end also ``outcome``,
    ``elapsed`` (in seconds, as Sidekiq's), and ``error_class`` and
    ``error_message`` if it failed.

    Parameters:
      level: Level of both lines; a retry is a warning, a dead job an error.
      args: Also log the arguments, as the field ``job_args`` and at the end of
        the first line.  Off by default: arguments may hold secrets.
      logger: The logger; by default ``dramatiq_sidekiq_flow.job``.
    """

    def __init__(self, *, level: int = logging.INFO, args: bool = False, logger: logging.Logger | None = None) -> None:
        super().__init__()
        self.level = level
        self.args = args
        self.logger = logger or get_logger("dramatiq_sidekiq_flow.job")

    @property
    def watching(self) -> bool:
        return self.logger.isEnabledFor(self.level)

    def begin(self, job: JobExecution) -> None:
        fields = _fields(job)
        if not self.args:
            self._log(self.level, "start", fields, "")
            return
        fields["job_args"] = arguments = list(job.message.args)
        self._log(self.level, "start", fields, f" args={arguments!r}")

    def end(self, job: JobExecution) -> None:
        level = max(self.level, _LEVELS.get(job.outcome, self.level))
        fields = _fields(job)
        fields["outcome"] = job.outcome
        fields["elapsed"] = None if job.elapsed is None else round(job.elapsed, 6)
        suffix = "" if job.elapsed is None else f" elapsed={job.elapsed:.3f}"
        if job.exception is not None:
            fields["error_class"] = name = type(job.exception).__name__
            fields["error_message"] = _text(job.exception)
            # Without the message: it may hold arguments, and Dramatiq has logged it.
            suffix += f" error={name}"
        self._log(level, job.outcome, fields, suffix)

    def _log(self, level: int, word: str, fields: dict[str, Any], suffix: str) -> None:
        run = "" if fields["run_id"] is None else f" run={fields['run_id']}"
        self.logger.log(
            level,
            "%s: class=%s jid=%s queue=%s%s%s",
            word,
            fields["class"],
            fields["jid"],
            fields["queue"],
            run,
            suffix,
            extra=fields,
        )


def _fields(job: JobExecution) -> dict[str, Any]:
    return {"class": job.actor, "jid": job.jid, "queue": job.queue, "run_id": job.run_id}


def _text(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception:
        return ""
