"""Actors whose input and output are attrs classes.

A job has one JSON object as its only argument, or no argument.  A worker makes
the input from it as the gem's ``TypedJob`` does: it reads the input's fields from
the run's memory, overwrites them with the job's object, and then applies the
class's defaults and checks.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Protocol, TypeVar, overload

import dramatiq
from dramatiq import Middleware

from ..broker.send_many import send_many
from ..broker.sent_messages import SentMessages
from ..context import find_current_run
from ..errors import FlowError, InvalidInput, InvalidOutput, PayloadError
from ..wire.replace import Replace
from . import signature
from .call_input import CallInput, is_instance, or_empty, with_run
from .schema import Schema

R = TypeVar("R")

#: Message for which this thread's worker is about to call an actor.
_message: ContextVar[Any] = ContextVar("dramatiq_sidekiq_flow_message", default=None)


class TypedActor(dramatiq.Actor[..., R]):
    """An actor that takes an instance of one attrs class and may return one of another.

    The class of the input is the annotation of the function's only parameter;
    a function without one takes nothing.  The class of the output is the return
    annotation: an attrs class, a mapping, or a union of these and None; any
    other output is not checked.

    Examples:

      >>> @actor(actor_name="Docs::Extract", queue_name="python")
      ... def extract(input: ExtractInput) -> ExtractOutput: ...
      >>> extract.send(ExtractInput("42"))
      >>> extract.send(doc_id="42")
      >>> Workflow(Chain(fetch.message(), extract.message())).run()   # doc_id is in the run's memory

    The input may be an instance, keyword arguments, one mapping, or nothing,
    and is checked by the caller:

    * An instance sends all its fields, defaults too.  Keyword arguments and a
      mapping send only the fields given, so that memory can fill the rest.
    * :meth:`message` accepts missing fields: it may become a step, whose run
      has a memory.  :meth:`send` does not: a job sent alone has no run whose
      memory could fill them.

    Calling the actor calls the function, with these checks, and returns its
    result.  When a worker calls it, the input is filled from memory, and the
    output is returned in its JSON form, for memory and Results.

    A value that does not fit raises InvalidInput or InvalidOutput, naming each
    path.  In a worker these are not retried: the job is dead at once (they are
    added to ``throws``), and nothing of the output is written.

    Attributes:
      input: The schema of the input; None if the actor takes nothing.
      output: The schema of the output; None if it is not checked.

    Raises:
      ConfigurationError: if a typed actor cannot have this function or
        annotation; raised when the actor is declared.
    """

    input: Schema | None
    output: Schema | None

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        broker: dramatiq.Broker,
        actor_name: str,
        queue_name: str,
        priority: int,
        options: dict[str, Any],
    ) -> None:
        read = signature.read(fn, actor_name)
        self.input, self.output = read.input, read.output
        self._call_input = CallInput(actor_name, read.parameter, read.input)
        throws = options.get("throws") or ()
        throws = throws if isinstance(throws, tuple) else (throws,)
        options = {**options, "throws": (*throws, InvalidInput, InvalidOutput)}
        super().__init__(
            fn, broker=broker, actor_name=actor_name, queue_name=queue_name, priority=priority, options=options
        )

    @property
    def broker(self) -> dramatiq.Broker:
        """The broker of the actor's messages; it gets the middleware that marks calls by its workers."""
        return self._broker

    @broker.setter
    def broker(self, broker: dramatiq.Broker) -> None:
        self._broker = broker
        if not any(isinstance(middleware, _Calls) for middleware in broker.middleware):
            broker.add_middleware(_Calls())

    @property
    def input_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the input."""
        return None if self.input is None else self.input.json

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the output."""
        return None if self.output is None else self.output.json

    @property
    def output_fields(self) -> frozenset[str] | None:
        """The fields that the output sets in a run's memory; None if its type does not name them."""
        if self.output is None or not self.output.fields:
            return None
        return frozenset(self.output.fields)

    # -- at the caller --------------------------------------------------------

    def message_with_options(
        self, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **options: Any
    ) -> dramatiq.Message[R]:
        """Build a message, as :meth:`message` does, with message options.

        Raises:
          InvalidInput: if a field has the wrong type, or is unknown.
        """
        if not isinstance(args, _Checked):
            args = self._arguments(args, kwargs or {}, complete=False)
        return super().message_with_options(args=tuple(args), kwargs={}, **options)

    def send_with_options(
        self,
        *,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        delay: timedelta | int | None = None,
        **options: Any,
    ) -> dramatiq.Message[R]:
        """Send a message, as :meth:`send` does, with message options.

        Parameters:
          delay: Milliseconds, or a timedelta.

        Raises:
          InvalidInput: if a field is missing, has the wrong type, or is
            unknown.  Nothing is enqueued.
        """
        checked = self._arguments(args, kwargs or {}, complete=True)
        return super().send_with_options(args=checked, kwargs={}, delay=delay, **options)

    def send_many(
        self, items: Iterable[Any], *, delay: timedelta | int | None = None, **options: Any
    ) -> SentMessages[R]:
        """Send a job for each item, an instance or a mapping; see :func:`~dramatiq_sidekiq_flow.send_many`."""
        return send_many(self, items, delay=delay, **options)

    def bulk_arguments(self, item: Any) -> tuple[Any, ...]:
        """The arguments of a job sent alone, from an instance, a mapping, or None for nothing; internal.

        Raises:
          InvalidInput: as :meth:`send`.
        """
        return self._arguments(() if item is None else (item,), {}, complete=True)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, complete: bool) -> _Checked:
        given = self._call_input.read(args, kwargs)
        schema = self.input
        if schema is None or (given is None and not complete):
            return _Checked()
        with _named(self.actor_name):
            values = schema.dump(or_empty(given))
            if complete or _has_all_fields(given, values, schema):
                schema.load(values)
            else:
                schema.check(values)
        return _Checked() if given is None else _Checked((values,))

    # -- a call ---------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Call the function.

        Raises:
          InvalidInput, InvalidOutput: if the input or the output does not fit;
            the message names each path.
        """
        message = _message.get()
        if message is None or message.actor_name != self.actor_name:
            return self._call(*self._direct(args, kwargs))
        _message.set(None)  # since the function may itself call actors
        try:
            in_json: R = self._called_by_worker(args, kwargs)
            return in_json
        except (InvalidInput, InvalidOutput) as e:
            self.logger.error("Job %s failed and is not retried: %s", message.message_id, e)
            raise

    def _call(self, *args: Any) -> R:
        result = super().__call__(*args)
        self._json(result)
        return result

    def _direct(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        given = self._call_input.read(args, kwargs)
        if self.input is None:
            return ()
        with _named(self.actor_name):
            values = self.input.load(self.input.dump(or_empty(given)))
        return (given if is_instance(given, self.input) else values,)

    def _called_by_worker(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.input is None:
            return self._json(super().__call__())
        given = self._call_input.read(with_run(args), kwargs)
        values = self.input.dump(or_empty(given))
        remembered = self._remembered(self.input, values)
        with _named(self.actor_name, remembered):
            instance = self.input.load({**remembered, **values})
        return self._json(super().__call__(instance))

    def _remembered(self, schema: Schema, values: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields that were not given from the run's memory."""
        run = find_current_run()
        names = [name for name in schema.fields if name not in values]
        if run is None or run.memory.backend is None or not names:
            return {}
        try:
            return run.memory.read(*names)
        except PayloadError as e:
            raise InvalidInput(f"{self.actor_name}: input: the run's memory cannot be read: {e}", e.value) from None

    def _json(self, result: Any) -> Any:
        """Check the function's result; return its JSON form."""
        schema = self.output
        if schema is None:
            return result
        if isinstance(result, Replace):
            # The values of the step may come from the tree.
            return result if result.output is None else Replace(result.tree, output=self._json(result.output))
        with _named(self.actor_name):
            value = schema.load(schema.dump(result, "output", InvalidOutput), "output", InvalidOutput)
            return schema.dump(value, "output", InvalidOutput)


class _Checked(tuple[Any, ...]):
    """Arguments in wire form that were already checked."""

    __slots__ = ()


class _Calls(Middleware):
    """Middleware that marks calls of an actor by a worker."""

    def before_process_message(self, broker: Any, message: Any) -> None:
        _message.set(message)

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        _message.set(None)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        _message.set(None)


class _named:
    """Context manager that adds the actor's name to errors, and the names of the fields from memory."""

    def __init__(self, actor_name: str, remembered: Mapping[str, Any] | None = None) -> None:
        self.actor_name = actor_name
        self.remembered = remembered

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, FlowError):
            source = f" (from the run's memory: {', '.join(self.remembered)})" if self.remembered else ""
            error.message = f"{self.actor_name}: {error.message}{source}"
            error.args = (error.message,)


def _has_all_fields(given: Any, values: Mapping[str, Any], schema: Schema) -> bool:
    """Return True if an input has all fields, so that its class can check it as a whole."""
    return is_instance(given, schema) or values.keys() >= schema.fields.keys()


# -- the decorator ---------------------------------------------------------------


class _Decorator(Protocol):
    @overload
    def __call__(self, fn: Callable[..., Awaitable[R]]) -> TypedActor[R]: ...
    @overload
    def __call__(self, fn: Callable[..., R]) -> TypedActor[R]: ...


@overload
def actor(fn: Callable[..., Awaitable[R]]) -> TypedActor[R]: ...
@overload
def actor(fn: Callable[..., R]) -> TypedActor[R]: ...
@overload
def actor(
    *,
    actor_name: str | None = None,
    queue_name: str = "default",
    priority: int = 0,
    broker: dramatiq.Broker | None = None,
    **options: Any,
) -> _Decorator: ...


def actor(fn: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Declare a typed actor: ``dramatiq.actor(actor_class=TypedActor, ...)``, with the same options.

    Raises:
      ConfigurationError: if a typed actor cannot have this function or annotation.
    """
    options.setdefault("actor_class", TypedActor)
    return functools.partial(dramatiq.actor, **options) if fn is None else dramatiq.actor(fn, **options)
