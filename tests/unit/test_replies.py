"""Replies of RESP2 and RESP3, from a socket whose bytes arrive in pieces."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions

from dramatiq_sidekiq_flow.store.replies import read_replies

REPLIES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":42\r\n", 42),
    (b":-1\r\n", -1),
    (b"(1234567890123456789012\r\n", 1234567890123456789012),
    (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"_\r\n", None),
    (b"*3\r\n:1\r\n*0\r\n$2\r\n\r\n\r\n", [1, [], b"\r\n"]),
    (b"#t\r\n", True),
    (b"#f\r\n", False),
    (b",1.5\r\n", 1.5),
    (b"=6\r\ntxt:ab\r\n", b"ab"),
    (b"%1\r\n+proto\r\n:3\r\n", {b"proto": 3}),
    (b"~1\r\n+a\r\n", [b"a"]),
    (b"|1\r\n+ttl\r\n:3\r\n:7\r\n", 7),
]
PUSHED = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$7\r\nqueue:a\r\n"


class Pieces(socket.socket):
    """A socket that receives its bytes in pieces of some sizes, and then nothing more."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data, self.sizes = data, sizes

    def recv(self, size: int, flags: int = 0) -> bytes:
        cut = min(self.sizes.pop(0), size) if self.sizes else size
        piece, self.data = self.data[:cut], self.data[cut:]
        return piece

    def __del__(self) -> None: ...


@given(st.lists(st.sampled_from(REPLIES), min_size=1, max_size=9), st.lists(st.integers(1, 7)), st.integers(0, 9))
def test_replies_survive_any_cut(examples: list[tuple[bytes, Any]], sizes: list[int], pushed: int) -> None:
    parts = [raw for raw, _ in examples]
    parts.insert(pushed, PUSHED)
    source = Pieces(b"".join(parts), sizes)
    assert read_replies(source, len(examples)) == [value for _, value in examples]


@pytest.mark.parametrize("length", [65_535, 65_536, 65_537, 1_000_000])
def test_a_long_value_is_whole(length: int) -> None:
    value = bytes(length)
    data = b":1\r\n*2\r\n$%d\r\n%b\r\n$1\r\nx\r\n:3\r\n" % (length, value)
    assert read_replies(Pieces(data, [5, 30_000]), 3) == [1, [value, b"x"], 3]


def test_an_error_takes_the_place_of_its_reply() -> None:
    data = b"-ERR no\r\n:1\r\n-NOSCRIPT no\r\n*1\r\n-OOM no\r\n!9\r\nWRONGTYPE\r\n"
    found = read_replies(Pieces(data, []), 5)
    assert (str(found[0]), found[1]) == ("no", 1)
    assert isinstance(found[2], exceptions.NoScriptError)
    assert isinstance(found[3][0], exceptions.OutOfMemoryError)
    assert isinstance(found[4], exceptions.ResponseError)


def test_a_server_that_refuses_the_connection_is_lost() -> None:
    with pytest.raises(redis.BusyLoadingError):
        read_replies(Pieces(b":1\r\n-LOADING wait\r\n:1\r\n", []), 3)


@pytest.mark.parametrize("data", [b"", b":", b":1\r", b"$5\r\nabc", b"*2\r\n:1\r\n"])
def test_a_reply_that_ends_early_is_a_lost_connection(data: bytes) -> None:
    with pytest.raises(redis.ConnectionError, match="closed by server"):
        read_replies(Pieces(data, []), 1)


@pytest.mark.parametrize("data", [b":1\r\n:2\r\n", b"+OK\r\n:1\r\n"])
def test_more_replies_than_commands_are_refused(data: bytes) -> None:
    with pytest.raises(redis.ConnectionError, match="more replies"):
        read_replies(Pieces(data, []), 1)


def test_a_message_after_the_last_reply_is_dropped() -> None:
    source = Pieces(b":1\r\n" + PUSHED, [4 + 9])
    assert read_replies(source, 1) == [1]
    assert source.data == b""


def test_what_is_not_a_reply_is_refused() -> None:
    with pytest.raises(redis.InvalidResponse, match="HTTP"):
        read_replies(Pieces(b"HTTP/1.1 400 Bad Request\r\n", []), 1)


def test_silence_and_a_closed_socket() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.01)
    with pytest.raises(redis.TimeoutError):
        read_replies(ours, 1)
    ours.close()
    theirs.close()
    with pytest.raises(redis.ConnectionError, match="Error while reading"):
        read_replies(ours, 1)
