"""JSON, exactly."""

from __future__ import annotations

import enum
import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.errors import InvalidArguments, MalformedPayload, cut, shortened
from dramatiq_sidekiq_flow.wire import codec

text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=30,
)


class Color(str, enum.Enum):
    RED = "red"


@given(st.dictionaries(text, json_values))
def test_what_is_written_is_read_back_exactly(value: dict[str, Any]) -> None:
    codec.check(value)
    raw = codec.encode(value)
    # repr: 1 is not 1.0, 0.0 is not -0.0, and every digit of a float counts.
    assert repr(codec.decode(raw)) == repr(value)
    assert repr(json.loads(raw)) == repr(value)


@given(st.dictionaries(text, json_values))
def test_what_others_write_is_read_exactly(value: dict[str, Any]) -> None:
    assert repr(codec.decode(json.dumps(value).encode())) == repr(value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([math.nan], "args[0]"),
        ([[1, {"price": math.inf}]], "args[0][1].price"),
        ([b"bytes"], "args[0]"),
        ([Decimal("1")], "args[0]"),
        ([{1: "integer key"}], "args[0]"),
        ([{"a": {2, 3}}], "args[0].a"),
        ([Color.RED], "args[0]"),
        ([object()], "args[0]"),
    ],
)
def test_what_json_does_not_have_is_refused_by_path(value: Any, path: str) -> None:
    with pytest.raises(InvalidArguments, match="^" + path.replace("[", r"\[").replace("]", r"\]") + ":"):
        codec.check(value)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="surrogates"):
        codec.encode({"text": "\ud800"})


def test_deeper_than_ruby_reads_is_refused() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    codec.check(nested(codec.MAX_DEPTH))
    with pytest.raises(InvalidArguments, match="nested deeper"):
        codec.check(nested(codec.MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{not json",
        b'{"a": 1',
        b"\xff\xfe",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": 1e400}',
        b'{"a": NaN}',
        b"[1, 2]",
        b'"text"',
        b"17",
        b"null",
        b"true",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a": ' + b"1" * 5_000 + b"}",
    ],
)
def test_what_cannot_be_read_keeps_its_bytes(raw: bytes) -> None:
    with pytest.raises(MalformedPayload) as error:
        codec.decode(raw)
    assert error.value.value == raw


def test_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_SIZE", 7)
    monkeypatch.setattr(codec, "MARGIN", 3)
    with pytest.raises(MalformedPayload, match="11 bytes"):
        codec.decode(b'{"a": 1234}')
    assert codec.decode(b'{"a": 1234}', limited=False) == {"a": 1234}


def test_what_a_worker_would_refuse_is_refused_at_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than workers read: a failure adds its error and backtrace to the payload."""
    fields = {"class": "Docs::Extract", "args": ["x" * 100]}
    size = len(codec.encode(fields))
    monkeypatch.setattr(codec, "MAX_SIZE", size)
    assert len(codec.encode_payload(fields)) == size
    monkeypatch.setattr(codec, "MAX_SIZE", size - 1)
    with pytest.raises(InvalidArguments, match=f"'Docs::Extract' has {size} bytes, more than the {size - 1} "):
        codec.encode_payload(fields)


LARGE = ["x" * 10**6, ["x" * 10**6] * 100, {"x" * 10**6: [[[[[[1]]]]]]}, 10**5000, object()]


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_a_message_holds_the_beginning_of_a_large_value(value: Any) -> None:
    assert len(shortened(value)) < 600
    assert len(cut("x" * 10**6)) < 600
