"""Payload of a job: one JSON object.

All keys of a payload, known or not, are kept and written back.  The rules
come from Sidekiq's ``client.rb`` (push), ``job_util.rb`` (defaults) and
``job_retry.rb`` (failures).
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import FlowError, InvalidPayload, PayloadError, UnsupportedPayload, shortened
from . import codec
from .callbacks import Callback, load_stack
from .dialect import KEYS as WORKFLOW_KEYS
from .dialect import NOOP_CLASSES, WORKFLOW, Dialect, detect
from .payload_fields import WRAPPERS, retry_count, step_number
from .tree_schema import MAX_NAME

#: Sidekiq's options for a class that sets none (``default_job_options``).
DEFAULTS: Mapping[str, Any] = {"retry": True, "queue": "default"}

#: Number of retries for ``retry: true`` (``job_retry.rb``, ``DEFAULT_MAX_RETRY_ATTEMPTS``).
DEFAULT_RETRIES = 25

#: Maximum length of ``error_message``, in characters (``job_retry.rb``, ``exception_message``).
MAX_ERROR_MESSAGE = 10_000

#: The option of a step that names the namespace of its output in the run's
#: memory; ``outer.inner`` is inside ``outer``.
NAMESPACE_KEY = "memory_namespace"

#: The class of a dead job that wraps bytes which are not a job.
WRAPPER_CLASS = "MalformedPayload"

#: Keys of the context of a job, which is copied from a finished step to the
#: next one, and to the jobs that a job sends: attributes of the request, locale
#: and time zone, the tenant (apartment, acts_as_tenant, activerecord-multi-tenant),
#: and traces (W3C, Sentry, Datadog).
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

#: Prefixes of more such keys: a Ruby program with several classes of
#: CurrentAttributes writes ``cattr_1`` in addition to ``cattr``, and so on.
INHERITED_PREFIXES = ("cattr_", "x-datadog-")


def is_inherited(key: str, others: Collection[str] = ()) -> bool:
    """Return True if a key belongs to the context of a job.

    Parameters:
      others: Further keys of the context, from the configuration.
    """
    return key in INHERITED or key.startswith(INHERITED_PREFIXES) or key in others


#: Keys that each job has for itself, so that few keys are looked at: none of them can be passed on.
_OWN_KEYS = WORKFLOW_KEYS | {"class", "args", "jid", "queue", "retry", "created_at", "enqueued_at"}

#: Keyword arguments of a job that has none.
NO_KWARGS: Mapping[str, Any] = {}


# A tuple, since each job needs one: a frozen attrs object with so many attributes takes three times as long.
class Payload(NamedTuple):
    """A job that can be run.

    Attributes:
      raw: The bytes as they are in Redis.
      fields: All keys of the object; a jid is added if it has none.
      actor_name: ``class``, or ``wrapped`` for a carrier or an ActiveJob.
      args: The arguments; of an ActiveJob, those of its ``perform``.
      kwargs: The keyword arguments of an ActiveJob; other jobs have none.
      jid: The job's id; if it has none, a hash of the bytes, so that the same
        bytes delivered twice are the same job.
      stack: The callback stack, top last.
      dialect: The dialect of its workflow's keys.
      namespace: The namespace of its output in the run's memory; "" is the shared one.
      retrieved: True if the stack came from a callback storage, and is not in ``raw``.
      run_id: ``workflow_run_id``, the same for all jobs of a run; None outside of a workflow.
    """

    raw: bytes
    fields: dict[str, Any]
    actor_name: str
    args: list[Any]
    jid: str
    stack: tuple[Callback, ...]
    dialect: Dialect = WORKFLOW
    namespace: str = ""
    kwargs: Mapping[str, Any] = NO_KWARGS
    retrieved: bool = False
    run_id: str | None = None

    @classmethod
    def decode(
        cls,
        raw: bytes,
        retrieve: Callable[[Any], Any] | None = None,
        known: tuple[Callback, ...] | None = None,
    ) -> Payload:
        """Read a payload.

        Parameters:
          retrieve: Function of a callback storage: value that the payload holds
            in place of its callback stack -> the stack.  Its errors are raised.
          known: The callback stack, if this process has written it into the payload;
            it is not read again.

        Raises:
          PayloadError: if the job cannot be run.  It is a subclass that names the
            reason; its value is the raw bytes.
        """
        fields = _object(raw)
        name: Any = fields.get("class")
        if name == WRAPPER_CLASS:
            # An operator retried it from dead: the wrapped bytes fail again, with their own error.
            return cls.decode(_wrapped(fields, raw))
        if type(name) is not str or not 0 < len(name) <= MAX_NAME:
            raise _invalid_name(name, "class", raw)
        args = fields.get("args")
        if type(args) is not list:
            raise InvalidPayload(f"The job's args must be an array, not {shortened(args)}.", raw)
        if "encrypt" in fields or "_f" in fields:
            _check_format(fields, raw)
        dialect = WORKFLOW
        stack: tuple[Callback, ...] = ()
        run_id = None
        if not WORKFLOW_KEYS.isdisjoint(fields):
            dialect = detect(fields)
            stack = _stack(fields.get(dialect.callbacks_key), retrieve, raw) if known is None else known
            run_id = _checked_run_id(fields, dialect, raw)
        kwargs = NO_KWARGS
        if name in _WRAPPERS:
            name, args, kwargs = _unwrap(fields, raw)
        namespace = _namespace(fields, raw) if NAMESPACE_KEY in fields else ""
        jid: str = fields["jid"]
        return cls(raw, fields, name, args, jid, stack, dialect, namespace, kwargs, retrieve is not None, run_id)

    @property
    def step(self) -> int | None:
        """Number of the step in the tree of its run, from 1; None if it has none."""
        return step_number(self.fields)

    @property
    def is_member(self) -> bool:
        """True if it is a step of a group."""
        return bool(self.stack) and self.stack[-1].kind != "f"

    @property
    def may_delay(self) -> bool:
        """True if the trees of the stack may hold a delay or an ``at``; if False, they need not be walked."""
        return self.retrieved or not self.raw or b'"delay"' in self.raw or b'"at"' in self.raw

    @property
    def retries(self) -> int:
        """Number of retries so far: ``retry_count`` is 0 after the first failure."""
        count = retry_count(self.fields)
        return 0 if count is None else count + 1

    def inherited(self, others: Collection[str] = ()) -> dict[str, Any]:
        """Return the context that the next steps inherit; see :func:`is_inherited`."""
        return {key: value for key, value in self.fields.items() if key not in _OWN_KEYS and is_inherited(key, others)}


def fingerprint(raw: bytes) -> str:
    """Hash a payload's bytes to 24 hex digits."""
    return hashlib.sha1(raw).hexdigest()[:24]  # noqa: S324 - an id, not a secret


def failed(
    fields: Mapping[str, Any], error: BaseException, *, now: float, queue: str, backtrace: Sequence[str] = ()
) -> dict[str, Any]:
    """Make the payload of a job that failed (``job_retry.rb``, ``process_retry``).

    Parameters:
      fields: The payload before the failure.
      now: Epoch seconds.
      queue: The queue that it came from.
      backtrace: Lines, innermost first; written if the job asks for them
        (``backtrace: true`` for all, an integer for that many).
    """
    after = dict(fields)
    retry_queue = fields.get("retry_queue")
    # A value of another type would name a queue that no worker reads.
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
    wanted = fields.get("backtrace")
    if wanted:
        limit = None if wanted is True else _integer(wanted)
        after["error_backtrace"] = compress_backtrace(backtrace[:limit])
    return after


def error_message(error: BaseException) -> str:
    """Convert an error to the text of ``error_message``: valid UTF-8, at most 10,000 characters."""
    try:
        text = str(error)[:MAX_ERROR_MESSAGE]
    except Exception:
        return "!!! ERROR MESSAGE THREW AN ERROR !!!"
    return text.encode("utf-8", "replace").decode("utf-8")


def compress_backtrace(lines: Sequence[str]) -> str:
    """Compress a backtrace: base64 of zlib of a JSON array (``job_retry.rb``, ``compress_backtrace``)."""
    clean = [line.encode("utf-8", "replace").decode("utf-8") for line in lines]
    return base64.b64encode(zlib.compress(codec.encode(clean))).decode("ascii")


def buried(raw: bytes, error: FlowError, *, now: float, queue: str) -> bytes:
    """Make the payload that goes to ``dead`` for bytes that cannot be run.

    A JSON object keeps all its keys.  Bytes that Sidekiq could not push again
    (``job_util.rb``, ``validate``: its retry button would lose the job) are
    wrapped: ``args`` shows them as text, and ``raw`` holds them in base64.
    """
    try:
        # Without a limit: a wrapped payload grows by a third each time that it is retried.
        fields = _object(raw, limited=False)
    except FlowError:
        fields = {"jid": fingerprint(raw), "created_at": now}
    if type(fields.get("class")) is not str or type(fields.get("args")) is not list:
        fields["class"] = WRAPPER_CLASS
        fields["args"] = [raw[:1000].decode("utf-8", "replace")]
        # 0, not false: a Ruby worker would discard the job.
        fields["retry"] = 0
        fields["raw"] = base64.b64encode(raw).decode("ascii")
    return codec.encode(failed(fields, error, now=now, queue=queue))


def _object(raw: bytes, *, limited: bool = True) -> dict[str, Any]:
    """Read the JSON object of a payload; add a missing jid, by which Sidekiq's pages and buttons find a job."""
    fields = codec.decode(raw, limited=limited)
    jid = fields.get("jid")
    if type(jid) is not str or not 0 < len(jid) <= MAX_NAME:
        fields["jid"] = fingerprint(raw)
    return fields


def _invalid_name(name: Any, key: str, raw: bytes) -> InvalidPayload:
    """Make the error of a class whose name is not text of a length fit for a log line."""
    if type(name) is not str or not name:
        return InvalidPayload(f"The job's {key} must be the name of a class, not {shortened(name)}.", raw)
    return InvalidPayload(
        f"The job's {key} must be a name of at most {MAX_NAME} characters; {shortened(name)} has {len(name)}.", raw
    )


#: Classes of jobs whose ``wrapped`` names the actor.
_WRAPPERS = NOOP_CLASSES | WRAPPERS


def _check_format(fields: Mapping[str, Any], raw: bytes) -> None:
    """Refuse formats that only another program can read."""
    if fields.get("encrypt"):
        raise UnsupportedPayload("The job's last argument is encrypted (Sidekiq Enterprise); run it in Ruby.", raw)
    if "_f" in fields:
        raise UnsupportedPayload(f"The job is in the unknown format _f={shortened(fields['_f'])}.", raw)


def _stack(callbacks: Any, retrieve: Callable[[Any], Any] | None, raw: bytes) -> tuple[Callback, ...]:
    """Read a callback stack; its errors carry the bytes of the payload."""
    if callbacks is None:
        return ()
    if retrieve is not None:
        callbacks = retrieve(callbacks)
    try:
        return load_stack(callbacks)
    except PayloadError as e:
        raise type(e)(e.message, raw) from None


def _unwrap(fields: Mapping[str, Any], raw: bytes) -> tuple[Any, list[Any], Mapping[str, Any]]:
    """Read the actor name, arguments and keyword arguments of a carrier or an ActiveJob."""
    name, args = fields["class"], fields["args"]
    kwargs = NO_KWARGS
    if name in WRAPPERS:
        from . import active_job  # few processes need it

        name, args, kwargs = active_job.unwrap(fields, raw)
    elif fields.get("wrapped") is not None:
        name = fields["wrapped"]
    # Without "wrapped" it is the gem's own NoopWorker, not a carrier.
    if type(name) is not str or not 0 < len(name) <= MAX_NAME:
        raise _invalid_name(name, "wrapped", raw)
    return name, args, kwargs


def read_run_id(fields: Mapping[str, Any], dialect: Dialect) -> str | None:
    """Read ``workflow_run_id`` of a job; None if it has none."""
    run_id = fields.get(dialect.run_id_key)
    return run_id if type(run_id) is str and run_id else None


def _checked_run_id(fields: Mapping[str, Any], dialect: Dialect, raw: bytes) -> str | None:
    run_id = read_run_id(fields, dialect)
    if run_id is not None and len(run_id) > MAX_NAME:
        raise InvalidPayload(f"The job's {dialect.run_id_key} is longer than {MAX_NAME} characters.", raw)
    return run_id


def _namespace(fields: Mapping[str, Any], raw: bytes) -> str:
    """Read the namespace of the job's output; "" is the shared one."""
    namespace = fields[NAMESPACE_KEY] or ""
    if type(namespace) is not str:
        raise InvalidPayload(f"The job's {NAMESPACE_KEY} must be a name, not {shortened(namespace)}.", raw)
    return namespace


def _wrapped(fields: Mapping[str, Any], raw: bytes) -> bytes:
    """Read the bytes that :func:`buried` wrapped."""
    try:
        return base64.b64decode(fields.get("raw"), validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidPayload(f"The job is of the class {WRAPPER_CLASS}, but has no bytes in 'raw'.", raw) from None


def _integer(value: Any) -> int:
    return value if type(value) is int else 0
