"""A job, as one JSON object: what Sidekiq calls the payload.

Whatever keys a payload has, known or not, are kept and written back.  The
rules come from Sidekiq's ``client.rb`` (push), ``job_util.rb`` (defaults) and
``job_retry.rb`` (failures).
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs

from ..errors import FlowError, InvalidPayload, PayloadError, UnsupportedPayload, shortened
from . import active_job, codec
from .callbacks import Callback, load_stack
from .dialect import NOOP_CLASSES, WORKFLOW, Dialect, detect
from .tree_schema import MAX_NAME

#: What Sidekiq writes for a class that says nothing (``default_job_options``).
DEFAULTS: Mapping[str, Any] = {"retry": True, "queue": "default"}

#: ``retry: true`` (``job_retry.rb``, ``DEFAULT_MAX_RETRY_ATTEMPTS``).
DEFAULT_RETRIES = 25

#: Those 25 retries take about 21 days, in seconds: a barrier outlives them.
RETRY_HORIZON = 21 * 86_400

#: Seconds that what has released is kept, as the gem keeps a barrier: for a duplicate that comes late.
RELEASED_TTL = 86_400

#: Redis refuses a ttl whose end it cannot count, and nobody waits for a
#: thousand years.  In seconds.
MAX_TTL = 1000 * 365 * 86_400

#: The last second of the year 9999.  A stamp after it, or before 1970, is damaged.
MAX_STAMP = 253_402_300_799

#: A larger ``retry_count`` is read as this one, so that the wait, ``count ** 4``,
#: stays a number that Redis takes.
MAX_RETRY_COUNT = 1_000_000

#: Sidekiq refuses a larger ``retry_for`` (``job_util.rb``, ``validate``).  In seconds.
MAX_RETRY_FOR = 1_000_000_000

#: ``error_message`` is cut here (``job_retry.rb``, ``exception_message``).
MAX_ERROR_MESSAGE = 10_000

#: The option of a step that says under which name its output is kept apart;
#: ``outer.inner`` is inside ``outer``.
NAMESPACE_KEY = "memory_namespace"

#: The class of what is not a job and could not be buried as it was.
WRAPPER_CLASS = "MalformedPayload"

#: The context of a job: handed on from a finished step to the next, and to
#: what a job sends.  Attributes of the request, locale and time zone, the
#: tenant (apartment, acts_as_tenant, activerecord-multi-tenant), and traces
#: (W3C, Sentry, Datadog).
INHERITED = frozenset(
    (
        "cattr",
        "locale",
        "tz",
        "traceparent",
        "tracestate",
        "baggage",
        "apartment",
        "acts_as_tenant",
        "multi_tenant",
        "trace_propagation_headers",
        "sentry_user",
    )
)

#: And keys that begin so: where a Ruby program keeps several kinds of
#: CurrentAttributes, there is a ``cattr_1`` beside ``cattr``, and so on.
INHERITED_PREFIXES = ("cattr_", "x-datadog-")


def is_inherited(key: str, others: Collection[str] = ()) -> bool:
    """Whether a key belongs to the context of a job.

    Parameters:
      others: Keys that belong to it here, beyond the usual ones.
    """
    return key in INHERITED or key.startswith(INHERITED_PREFIXES) or key in others


@attrs.frozen
class Payload:
    """A job that can be run.

    Attributes:
      raw: The bytes as they stood in Redis.
      fields: The whole object, every key of it, and the jid where it had none.
      actor_name: ``class``, or ``wrapped`` for a carrier or an ActiveJob.
      args: The arguments, for an ActiveJob those inside it.
      kwargs: The keyword arguments of an ActiveJob; no other job has any.
      jid: The job's id; where none was written, one made from the bytes, so
        that the same bytes delivered twice are the same job.
      stack: The callback stack, top last.
      dialect: In which its workflow's keys are named.
      namespace: Where in the run's memory it writes; empty for everybody's.
    """

    raw: bytes
    fields: dict[str, Any]
    actor_name: str
    args: list[Any]
    jid: str
    stack: tuple[Callback, ...]
    dialect: Dialect = WORKFLOW
    namespace: str = ""
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def decode(cls, raw: bytes, retrieve: Callable[[Any], Any] | None = None) -> Payload:
        """Read a payload.

        Parameters:
          retrieve: Gives the callback stack for what the payload holds in its
            place (a callback storage's; whatever it raises is raised).

        Raises:
          PayloadError: one of its kinds, with the raw bytes as value.
        """
        fields = _object(raw)
        name: Any = fields.get("class")
        if name == WRAPPER_CLASS:
            # Retried from dead: what was wrong with it then is wrong with it still.
            return cls.decode(_wrapped(fields, raw))
        _check_name(name, "class", raw)
        args = fields.get("args")
        if type(args) is not list:
            raise InvalidPayload(f"The job's args must be an array, not {shortened(args)}.", raw)
        if fields.get("encrypt"):
            raise UnsupportedPayload("The job's last argument is encrypted (Sidekiq Enterprise); run it in Ruby.", raw)
        if "_f" in fields:
            raise UnsupportedPayload(f"The job is in the unknown format _f={shortened(fields['_f'])}.", raw)
        stack: tuple[Callback, ...] = ()
        dialect = detect(fields)
        callbacks = fields.get(dialect.callbacks_key)
        if callbacks is not None:
            if retrieve is not None:
                callbacks = retrieve(callbacks)
            try:
                stack = load_stack(callbacks)
            except PayloadError as e:
                raise type(e)(e.message, raw) from None
        kwargs: dict[str, Any] = {}
        if name in NOOP_CLASSES and fields.get("wrapped") is not None:
            name = fields["wrapped"]
            _check_name(name, "wrapped", raw)
        elif name in active_job.WRAPPERS:
            name, args, kwargs = active_job.unwrap(fields, raw)
            _check_name(name, "wrapped", raw)
        run_id = fields.get(dialect.run_id_key)
        if type(run_id) is str and len(run_id) > MAX_NAME:
            raise InvalidPayload(f"The job's {dialect.run_id_key} is longer than {MAX_NAME} characters.", raw)
        namespace = fields.get(NAMESPACE_KEY) or ""
        if type(namespace) is not str:
            raise InvalidPayload(f"The job's {NAMESPACE_KEY} must be a name, not {shortened(namespace)}.", raw)
        jid: str = fields["jid"]
        return cls(raw, fields, name, args, jid, stack, dialect, namespace, kwargs)

    @property
    def run_id(self) -> str | None:
        """``workflow_run_id``, the same for each job of a run."""
        run_id = self.fields.get(self.dialect.run_id_key)
        return run_id if type(run_id) is str and run_id else None

    @property
    def retries(self) -> int:
        """How many retries were made: ``retry_count`` is 0 on the first failure."""
        count = retry_count(self.fields)
        return 0 if count is None else count + 1

    def inherited(self, others: Collection[str] = ()) -> dict[str, Any]:
        """The context: the keys that a continuation takes over; see :func:`is_inherited`."""
        return {key: value for key, value in self.fields.items() if is_inherited(key, others)}


def seconds(stamp: Any) -> float | None:
    """Epoch seconds of a time stamp of any Sidekiq version.

    7.x writes float seconds, 8.x integer milliseconds; text is read as
    either; anything else is None, and so is a time outside 1970 to 9999.
    """
    if type(stamp) is str:
        if len(stamp) > 40:
            return None
        try:
            stamp = float(stamp) if "." in stamp else int(stamp)
        except ValueError:
            return None
    if type(stamp) is int:
        return stamp / 1000 if 0 <= stamp <= MAX_STAMP * 1000 else None
    if type(stamp) is float and 0 <= stamp <= MAX_STAMP:
        return stamp
    return None


def retry_count(fields: Mapping[str, Any]) -> int | None:
    """The ``retry_count`` of a job; None before its first failure, and for anything but an integer.

    -1 is what a first failure becomes when a person retries it; what lies
    outside -1 to :data:`MAX_RETRY_COUNT` is read as the nearer end.
    """
    count = fields.get("retry_count")
    return min(max(count, -1), MAX_RETRY_COUNT) if type(count) is int else None


def retry_for(fields: Mapping[str, Any]) -> float | None:
    """For how many seconds after the first failure a job is tried again; None where its ``retry`` decides."""
    limit = fields.get("retry_for")
    if type(limit) is not int and type(limit) is not float:
        return None
    return float(min(max(limit, -1), MAX_RETRY_FOR))


def expiry(fields: Mapping[str, Any]) -> float | None:
    """After which epoch second a job is not to run (Sidekiq Pro); None where it never expires.

    An integer may be seconds, too; it is milliseconds where these seconds would be after the year 9999.
    """
    limit = fields.get("expiry")
    if type(limit) is int and abs(limit) <= MAX_STAMP:
        return float(limit)
    return seconds(limit)


def fingerprint(raw: bytes) -> str:
    """24 hex digits made from a payload's bytes."""
    return hashlib.sha1(raw).hexdigest()[:24]  # noqa: S324 - an id, not a secret


def failed(
    fields: Mapping[str, Any], error: BaseException, *, now: float, queue: str, backtrace: Sequence[str] = ()
) -> dict[str, Any]:
    """The payload after a failure (``job_retry.rb``, ``process_retry``).

    Parameters:
      fields: The payload before.
      now: Epoch seconds.
      queue: The queue that it came from.
      backtrace: Lines, innermost first; kept when the job asks for them
        (``backtrace: true`` all, an integer that many).
    """
    after = dict(fields)
    retry_queue = fields.get("retry_queue")
    # Of another type it would name a queue that nobody takes from.
    after["queue"] = retry_queue if type(retry_queue) is str and retry_queue else queue
    after["error_message"] = error_message(error)
    after["error_class"] = type(error).__name__
    count = retry_count(fields)
    if count is not None:
        after["retried_at"] = now
        after["retry_count"] = count + 1
    else:
        after["failed_at"] = now
        after["retry_count"] = 0
    keep = fields.get("backtrace")
    if keep:
        lines = list(backtrace) if keep is True else list(backtrace)[: _integer(keep)]
        after["error_backtrace"] = compress_backtrace(lines)
    return after


def error_message(error: BaseException) -> str:
    """What ``error_message`` holds: readable text, 10,000 characters at most."""
    try:
        text = str(error)[:MAX_ERROR_MESSAGE]
    except Exception:
        return "!!! ERROR MESSAGE THREW AN ERROR !!!"
    return text.encode("utf-8", "replace").decode("utf-8")


def compress_backtrace(lines: Sequence[str]) -> str:
    """Base64 of zlib of a JSON array (``job_retry.rb``, ``compress_backtrace``)."""
    clean = [line.encode("utf-8", "replace").decode("utf-8") for line in lines]
    return base64.b64encode(zlib.compress(codec.encode(clean))).decode("ascii")


def expand_backtrace(text: str) -> list[str]:
    """The lines of an ``error_backtrace``."""
    lines: list[str] = codec.decode_value(zlib.decompress(base64.b64decode(text)))
    return lines


def buried(raw: bytes, error: FlowError, *, now: float, queue: str) -> bytes:
    """What goes to ``dead`` for bytes that cannot be run, with a named error.

    A JSON object keeps every key it has.  What Sidekiq could not push again
    (``job_util.rb``, ``validate``: its button would lose the job) is wrapped:
    ``args`` shows it as text, and ``raw`` holds the bytes in base64.
    """
    try:
        # Of any size: wrapped, it would grow by a third each time that it is retried.
        fields = _object(raw, limited=False)
    except FlowError:
        fields = {"jid": fingerprint(raw), "created_at": now}
    if type(fields.get("class")) is not str or type(fields.get("args")) is not list:
        fields["class"] = WRAPPER_CLASS
        fields["args"] = [raw[:1000].decode("utf-8", "replace")]
        # 0 and not false: to a Ruby worker, that would be to throw it away.
        fields["retry"] = 0
        fields["raw"] = base64.b64encode(raw).decode("ascii")
    return codec.encode(failed(fields, error, now=now, queue=queue))


def _object(raw: bytes, *, limited: bool = True) -> dict[str, Any]:
    """The JSON object of a payload, with a jid: Sidekiq's pages and buttons know a job by it."""
    fields = codec.decode(raw, limited=limited)
    jid = fields.get("jid")
    if type(jid) is not str or not 0 < len(jid) <= MAX_NAME:
        fields["jid"] = fingerprint(raw)
    return fields


def _check_name(name: Any, key: str, raw: bytes) -> None:
    """See that a class has a name that a log line can hold."""
    if type(name) is not str or not name:
        raise InvalidPayload(f"The job's {key} must be the name of a class, not {shortened(name)}.", raw)
    if len(name) > MAX_NAME:
        raise InvalidPayload(
            f"The job's {key} must be a name of at most {MAX_NAME} characters; {shortened(name)} has {len(name)}.", raw
        )


def _wrapped(fields: Mapping[str, Any], raw: bytes) -> bytes:
    """The bytes inside a wrapper of :func:`buried`."""
    try:
        return base64.b64decode(fields.get("raw"), validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidPayload(f"The job is of the class {WRAPPER_CLASS}, and holds no bytes in 'raw'.", raw) from None


def _integer(value: Any) -> int:
    return value if type(value) is int else 0
