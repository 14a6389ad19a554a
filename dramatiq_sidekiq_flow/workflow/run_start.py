"""What a run that can be repeated keeps of its start: its tree, its seed and its options."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import attrs

from ..wire import codec
from ..wire.nodes import Wire, validate
from ..wire.run_end import ends_in_ruby
from ..wire.run_tree import dump_tree
from .engine import Engine
from .message_jids import without_jids
from .records import RunInfo

#: Level of compression: most of the time goes into the higher ones, and few bytes are saved.
LEVEL = 1

#: Most bytes that are read: a damaged key must not fill the memory.
MOST_BYTES = 256 * 1024 * 1024


@attrs.frozen
class RunStart:
    """What a run was started with.

    Attributes:
      wire: Its tree, without jids.
      seed: Initial values of its memory.
    """

    wire: Wire
    seed: Mapping[str, Any]
    info: RunInfo


def dump_start(wire: Wire, seed: Mapping[str, Any] | None, info: RunInfo) -> bytes:
    """Write what a run is started with: compressed JSON.

    Raises:
      InvalidArguments: if JSON cannot carry the seed.
    """
    kept = {
        "tree": without_jids(wire),
        "seed": dict(seed or {}),
        "total": info.total,
        "skipped": info.skipped,
        "template": info.template,
        "tags": list(info.tags),
        "calls": {name: without_jids(call) for name, call in info.calls.items()},
        "deadline": info.deadline,
        "unique": info.unique_key,
    }
    return zlib.compress(codec.encode(kept), LEVEL)


def load_start(raw: bytes, engine: Engine) -> RunStart:
    """Read what :func:`dump_start` wrote.

    Raises:
      PayloadError: if it cannot be read.
    """
    kept = codec.decode(zlib.decompressobj().decompress(raw, MOST_BYTES), limited=False)
    wire: Wire = kept["tree"]
    validate(wire)
    info = RunInfo(
        kept["total"],
        dump_tree(wire, engine.is_ruby, engine.records.arguments),
        kept["template"],
        tuple(kept["tags"]),
        kept["calls"],
        kept["deadline"],
        kept["unique"],
        kept["skipped"],
        ends_in_ruby=ends_in_ruby(wire, engine.is_ruby),
        repeatable=True,
    )
    return RunStart(wire, kept["seed"], info)
