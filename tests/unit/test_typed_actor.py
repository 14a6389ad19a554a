"""Declaring typed actors, and calling them without a worker."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs
import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_sidekiq_flow import TypedActor, actor
from dramatiq_sidekiq_flow.errors import ConfigurationError, InvalidInput, InvalidOutput


@attrs.frozen
class Input:
    doc_id: str
    language: str = "en"


@attrs.frozen
class Output:
    text: str
    words: int = 0


@pytest.fixture(autouse=True)
def broker() -> Iterator[StubBroker]:
    broker = StubBroker()
    dramatiq.set_broker(broker)
    yield broker
    broker.close()


@pytest.fixture
def extract() -> TypedActor[Any]:
    @actor
    def extract(input: Input) -> Output:
        return Output(f"{input.doc_id} in {input.language}")

    return extract


# -- a call ---------------------------------------------------------------------


def test_a_call_is_a_call_of_the_function(extract: TypedActor[Any]) -> None:
    expected = Output("42 in de")
    assert extract(Input("42", "de")) == expected
    assert extract(doc_id="42", language="de") == expected
    assert extract({"doc_id": "42", "language": "de"}) == expected
    assert extract(input=Input("42", "de")) == expected
    assert extract(doc_id="42") == Output("42 in en")


def test_the_instance_that_is_given_is_the_one_that_the_function_gets() -> None:
    got: list[Any] = []

    @actor
    def look(input: Input) -> None:
        got.append(input)

    given = Input("1")
    look(given)
    assert got[0] is given


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "input.doc_id: is missing"),
        ((), {"doc_id": 1}, "extract: input.doc_id: expected str, got int 1"),
        ((Input(1),), {}, "input.doc_id: expected str, got int 1"),  # type: ignore[arg-type]
        ((), {"doc_id": "1", "x": 1}, "input.x: unknown field (Input has doc_id, language)"),
        (("1",), {}, "extract takes one Input, its fields by name, or one mapping of them: input: got '1'"),
        ((Output("1"),), {}, "input: got Output"),
        ((Input("1"), Input("2")), {}, "extract takes one Input"),
        ((Input("1"),), {"language": "de"}, "extract takes one Input"),
        ((), {"input": {"doc_id": "1"}}, "input.input: unknown field"),
    ],
)
def test_bad_input_is_refused_everywhere(
    broker: StubBroker, args: tuple[Any, ...], kwargs: dict[str, Any], problem: str
) -> None:
    ran: list[Any] = []

    @actor
    def extract(input: Input) -> None:
        ran.append(input)

    for give in (extract, extract.send):
        with pytest.raises(InvalidInput) as error:
            give(*args, **kwargs)
        assert problem in str(error.value)
        assert error.value.message == str(error.value)
    with pytest.raises(InvalidInput):
        extract.send_with_options(args=args, kwargs=kwargs, delay=1000)
    if "is missing" not in problem:
        with pytest.raises(InvalidInput):
            extract.message(*args, **kwargs)
    assert ran == []
    assert all(queue.empty() for queue in broker.queues.values())


def test_a_message_may_leave_fields_to_memory(extract: TypedActor[Any]) -> None:
    assert extract.message().args == ()
    assert extract.message({}).args == ({},)
    assert extract.message(language="de").args == ({"language": "de"},)
    assert extract.message(Input("1")).args == ({"doc_id": "1", "language": "en"},)
    assert extract.message_with_options(kwargs={"doc_id": "1"}, tags=["x"]).options == {"tags": ["x"]}
    assert extract.message(doc_id="1").kwargs == {}


def test_what_was_sent_does_not_change_with_what_was_given() -> None:
    @attrs.define
    class Many:
        items: list[int]

    @actor
    def count(input: Many) -> None: ...

    items = [1]
    given = {"items": items}
    message = count.message(given)
    items.append(2)
    given["items"] = []
    assert message.args == ({"items": [1]},)


def test_complete_input_is_validated_as_a_whole() -> None:
    @attrs.frozen
    class Range:
        low: int
        high: int = attrs.field()

        @high.validator
        def _check(self, attribute: Any, value: int) -> None:
            if value < self.low:
                raise ValueError("high is less than low")

    @actor
    def between(input: Range) -> None: ...

    between.message(low=2)
    for give in (between.message, between.send):
        with pytest.raises(InvalidInput, match="^between: input.high: high is less than low$"):
            give(low=2, high=1)


def test_an_actor_without_input() -> None:
    @actor
    def ping() -> Output:
        return Output("pong")

    assert ping() == Output("pong")
    assert ping.message().args == ()
    for args, kwargs in [((1,), {}), (({},), {}), ((), {"a": 1})]:
        for give in (ping, ping.message, ping.send):
            with pytest.raises(InvalidInput, match="^ping takes nothing, not "):
                give(*args, **kwargs)
    assert ping.input_schema is None


@pytest.mark.parametrize("result", [Output(1), {"text": "x", "more": 1}, "x", None])  # type: ignore[arg-type]
def test_bad_output_is_refused_in_a_call_too(result: Any) -> None:
    @actor
    def make() -> Output:
        return cast(Output, result)

    with pytest.raises(InvalidOutput, match="^make: output"):
        make()


def test_other_return_annotations_say_nothing_of_the_output() -> None:
    @actor
    def one() -> int:
        return "not checked"  # type: ignore[return-value]

    @actor
    def two() -> list[Output]:
        return []

    @actor
    def three() -> None:
        return 3  # type: ignore[return-value]

    for each in (one, two, three):
        assert (each.output, each.output_schema) == (None, None)
    returned: tuple[Any, Any] = (one(), three())
    assert returned == ("not checked", 3)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (dict, {"a": 1}, []),
        (dict[str, int], {"a": 1}, {"a": "1"}),
        (Mapping[str, Any], {"a": [None]}, None),
        (typing.Optional[Output], None, 1),
        (Output | Input, Input("1"), {"text": "x", "doc_id": "1"}),
    ],
)
def test_outputs(annotation: Any, good: Any, bad: Any) -> None:
    returned: list[Any] = []

    def make() -> Any:
        return returned[-1]

    make.__annotations__["return"] = annotation
    typed = actor(make)
    returned.append(good)
    assert typed() == good
    returned.append(bad)
    with pytest.raises(InvalidOutput, match="^make: output"):
        typed()


# -- declaring ------------------------------------------------------------------


def _declared(fn: Any) -> None:
    actor(actor_name="Docs::Bad")(fn)


def test_functions_that_are_refused() -> None:
    def two(a: Input, b: Input) -> None: ...
    def many(*inputs: Input) -> None: ...
    def named(**inputs: Input) -> None: ...
    def keyword(*, input: Input) -> None: ...
    def bare(input) -> None: ...  # type: ignore[no-untyped-def]
    def a_string(input: str) -> None: ...
    def a_dict(input: dict[str, Any]) -> None: ...
    def optional(input: Input | None) -> None: ...

    fn: Any
    for fn in (two, many, named, keyword):
        with pytest.raises(ConfigurationError, match="^Docs::Bad: a typed actor takes one parameter"):
            _declared(fn)
    for fn in (bare, a_string, a_dict, optional):
        with pytest.raises(ConfigurationError, match="^Docs::Bad: annotate 'input' with the attrs class"):
            _declared(fn)

    def unknown(input: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match="^Docs::Bad: the annotations cannot be read: name 'Nowhere'"):
        _declared(unknown)

    @attrs.frozen
    class WithBytes:
        raw: bytes

    def bad_input(input: WithBytes) -> None: ...
    def bad_output() -> WithBytes: ...  # type: ignore[empty-body]

    for fn in (bad_input, bad_output):
        with pytest.raises(ConfigurationError, match="WithBytes.raw: JSON has no bytes"):
            actor(fn)
    assert dramatiq.get_broker().actors == {}


def test_classes_local_to_a_function_are_found() -> None:
    @attrs.frozen
    class Inner:
        n: int

    @attrs.frozen
    class Outer:
        inner: Inner
        more: list[Outer] = attrs.field(factory=list)

    @actor
    def short(input: Outer) -> Inner:
        return input.inner

    @actor(queue_name="other", priority=3)
    def options(input: Outer) -> Inner:
        return input.inner

    @dramatiq.actor(actor_class=TypedActor)
    def long(input: Outer) -> Inner:
        return input.inner

    @dramatiq.actor(actor_class=TypedActor)
    async def asynchronous(input: Outer) -> Inner:
        return input.inner

    each: Any
    for each in (short, options, long):
        assert each({"inner": {"n": 1}, "more": [{"inner": {"n": 2}}]}) == Inner(1)
    given: Any = {"inner": {"n": 1}}
    assert asynchronous.message(given).args == ({"inner": {"n": 1}},)
    assert (options.queue_name, options.priority) == ("other", 3)


@attrs.frozen
class AtTheTop:
    inner: Later


@attrs.frozen
class Later:
    n: int


def test_a_class_at_the_top_of_a_module_knows_its_module_only() -> None:
    Later = int  # noqa: F841

    @actor
    def look(input: AtTheTop) -> None: ...

    look.message({"inner": {"n": 1}})
    with pytest.raises(InvalidInput, match="input.inner: expected Later"):
        look.message({"inner": 1})


def test_decorated_functions_keep_their_annotations() -> None:
    import functools

    def logged(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            return fn(*args)

        return wrapper

    @actor
    @logged
    def extract(input: Input) -> Output:
        return Output(input.doc_id)

    assert extract(doc_id="1") == Output("1")


def test_a_broker_is_told_once_of_calls(broker: StubBroker) -> None:
    before = len(broker.middleware)
    for name in ("a", "b"):

        @actor(actor_name=name)
        def extract(input: Input) -> None: ...

    assert len(broker.middleware) == before + 1


def test_unknown_actor_options_are_refused_as_ever() -> None:
    with pytest.raises(ValueError, match="undefined: colour"):

        @actor(colour="red")
        def extract(input: Input) -> None: ...
