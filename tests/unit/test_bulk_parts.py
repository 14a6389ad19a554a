"""The parts of which many jobs are made: ids, payloads, parts of a script call."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dramatiq_sidekiq_flow.errors import InvalidArguments
from dramatiq_sidekiq_flow.store.parts import PART_BYTES, PART_ELEMENTS, slices
from dramatiq_sidekiq_flow.wire import codec
from dramatiq_sidekiq_flow.wire.jids import BYTES, jids
from dramatiq_sidekiq_flow.wire.payload_frame import END, PayloadFrame


@given(st.binary(max_size=100 * BYTES).map(lambda data: data[: len(data) // BYTES * BYTES]))
def test_ids_are_uuids_of_their_random_bytes(random: bytes) -> None:
    made = jids(random)
    expected = [uuid.UUID(bytes=random[i : i + BYTES], version=4) for i in range(0, len(random), BYTES)]
    assert len(made) == len(expected)
    for jid, want in zip(made, expected):
        read = uuid.UUID(jid.decode())
        assert str(read) == jid.decode()
        assert (read.version, read.variant) == (4, uuid.RFC_4122)
        # All random bits count; those of the variant are folded as hex digits.
        assert read.int & ~(0x3 << 62) == want.int & ~(0x3 << 62)


def test_ids_of_different_bytes_differ() -> None:
    for bit in {*range(128)} - {*range(62, 64), *range(76, 80)}:
        zero, one = jids(bytes(BYTES) + (1 << bit).to_bytes(BYTES, "big"))
        assert zero != one


@pytest.mark.parametrize("queued", [True, False])
def test_a_payload_is_that_of_its_fields(queued: bool) -> None:
    fields = {"queue": "q", "class": "Docs::Lädt", "args": [1], "jid": "other", "created_at": 1.0, "tags": ["a"]}
    frame = PayloadFrame.of(fields, queued=queued)
    (raw,) = frame.payloads([b'["x",{"y":null}]'], [b"me"], 1234567890.125)
    times = {"created_at": 1234567890.125, **({"enqueued_at": 1234567890.125} if queued else {})}
    assert json.loads(raw) == {**fields, "args": ["x", {"y": None}], "jid": "me", **times}
    (widest,) = frame.payloads([b""], [b"x" * 36], 1 / 3 * 10**10)
    assert len(widest) - len(frame.head) <= END


@given(st.lists(st.sampled_from([1, 1000, PART_BYTES // 2, PART_BYTES, 2 * PART_BYTES]), max_size=30))
def test_slices_are_parts(sizes: list[int]) -> None:
    payloads = [bytes(size) for size in sizes]
    found = [payloads[part] for part in slices(payloads)]
    assert [payload for part in found for payload in part] == payloads
    for part in found:
        assert 0 < len(part) <= PART_ELEMENTS
        assert sum(map(len, part[:-1])) < PART_BYTES


@pytest.mark.parametrize("count", [0, 1, PART_ELEMENTS, PART_ELEMENTS + 1, 3 * PART_ELEMENTS])
def test_a_part_has_a_thousand_elements(count: int) -> None:
    assert [part.stop - part.start for part in slices([b"x"] * count)] == [
        min(PART_ELEMENTS, count - start) for start in range(0, count, PART_ELEMENTS)
    ]


@given(st.lists(st.lists(st.integers(-(2**63), 2**64 - 1) | st.text() | st.none(), max_size=3), max_size=5))
def test_lines_are_the_values(values: list[list[object]]) -> None:
    try:
        lines = codec.encode_lines(values).splitlines()
    except InvalidArguments:  # a lone surrogate
        return
    assert lines == [codec.encode(value) for value in values]
