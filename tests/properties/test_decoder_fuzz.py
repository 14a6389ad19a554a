"""A few thousand mutated payloads: each is read, or refused under a named error.  ``make fuzz`` runs for longer."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from .. import fuzz
from ..example_counts import examples

SEEDS = fuzz.seeds()


@settings(max_examples=examples(1000))
@given(st.sampled_from(SEEDS), st.sampled_from(SEEDS), st.randoms(use_true_random=False))
@example(b":{}", b"", random.Random(1))
def test_what_is_mutated_is_read_or_refused(raw: bytes, other: bytes, chance: random.Random) -> None:
    mutated = fuzz.mutate(raw, other, chance)
    assert fuzz.run(mutated) is None, mutated


@given(st.binary(max_size=200))
@example('\u00e9:{"__type__":"job","class":"A","args":[]}'.encode())
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    assert fuzz.run(raw) is None, raw
