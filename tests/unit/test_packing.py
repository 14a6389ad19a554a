"""Packed commands: the same bytes as redis-py's."""

from __future__ import annotations

import enum

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.store.packing import LARGE, MANY, pack, parts
from dramatiq_sidekiq_flow.store.scripts import Command

ARGUMENTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
COMMANDS = st.lists(st.lists(ARGUMENTS, min_size=1).map(tuple))


class _Bytes(bytes):
    pass


class _Name(str, enum.Enum):
    QUEUE = "queue:mailers"


@given(COMMANDS)
@example([("SET", "größe", "1"), ("SET", "k", b"\r\n", -1, 1.5, 1e300)])
@example([("SET", _Bytes(b"raw"), _Name.QUEUE)])
@example([])
@example([("LPUSH", "k", *("v",) * MANY), ("LPUSH", "k", b"b" * LARGE)])
@example([("SET", b"a" * LARGE, "b" * LARGE, b"c" * (LARGE - 1)), ("GET", b"d" * LARGE)])
def test_the_bytes_are_those_of_redis_py(commands: list[Command]) -> None:
    connection = redis.Connection()
    # redis-py splits the name of a command at its spaces, so the name is one that has none.
    named = [("EVALSHA", *command) for command in commands]
    expected = b"".join(connection.pack_commands(named))
    assert b"".join(pack(named)) == expected
    assert b"".join(parts(named)) == expected


def test_a_large_value_is_not_copied() -> None:
    value = b"x" * LARGE
    assert any(part is value for part in pack([("SET", "key", value)]))


@pytest.mark.parametrize("wrong", [None, True, ["a"], {"a": 1}])
def test_other_types_are_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match=type(wrong).__name__):
        pack([("SET", "key", wrong)])  # type: ignore[list-item]
