"""What a server sends unasked, read from bytes that arrive in pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.store.resp3 import ErrorReply, Push, Replies

EXAMPLES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":42\r\n", 42),
    (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
    (b"$-1\r\n", None),
    (b"_\r\n", None),
    (b"*2\r\n:1\r\n*0\r\n", [1, []]),
    (b"#t\r\n", True),
    (b",1.5\r\n", 1.5),
    (b"-NOPERM no\r\n", ErrorReply("NOPERM no")),
    (b"!9\r\nBUSY busy\r\n", ErrorReply("BUSY busy")),
    (b"%1\r\n+proto\r\n:3\r\n", [b"proto", 3]),
    (b"~1\r\n+a\r\n", [b"a"]),
    (b">2\r\n$10\r\ninvalidate\r\n*1\r\n$7\r\nqueue:a\r\n", Push([b"invalidate", [b"queue:a"]])),
    (b">2\r\n$10\r\ninvalidate\r\n_\r\n", Push([b"invalidate", None])),
]


@given(st.lists(st.sampled_from(EXAMPLES)), st.lists(st.integers(1, 7)))
def test_replies_survive_any_cut(examples: list[tuple[bytes, Any]], cuts: list[int]) -> None:
    data = b"".join(raw for raw, _ in examples)
    replies, found = Replies(), []
    for size in cuts:
        replies.feed(data[:size])
        found += replies.take()
        data = data[size:]
    replies.feed(data)
    found += replies.take()
    assert found == [value for _, value in examples]


def test_what_is_not_resp3_is_refused() -> None:
    replies = Replies()
    replies.feed(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(ValueError, match="not RESP3"):
        replies.take()


def test_it_knows_how_much_of_a_payload_is_missing() -> None:
    replies = Replies()
    replies.feed(b"*2\r\n:1\r\n$10\r\n123")
    assert replies.take() == []
    assert replies.missing == 9
    replies.feed(b"4567890\r\n+")
    assert replies.take() == [[1, b"1234567890"]]
    assert replies.missing == 1
