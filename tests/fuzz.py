"""Mutates recorded payloads and the corpus, and reads the result: ``python -m tests.fuzz --seconds 300``.

A payload is decoded, or raises a PayloadError; trees, stacks, stored steps and
registry entries raise a FlowError; nothing else is raised.  What is decoded
encodes to equal JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dramatiq_sidekiq_flow.broker.message import SidekiqMessage
from dramatiq_sidekiq_flow.errors import FlowError, InvalidOptions, PayloadError
from dramatiq_sidekiq_flow.process import fleet
from dramatiq_sidekiq_flow.process.poller import promotion
from dramatiq_sidekiq_flow.registry.registry import Entry
from dramatiq_sidekiq_flow.wire import active_job, callbacks, codec, nodes, payload, references, tree_times

from . import tree_reader
from .corpus import loader
from .recordings import RECORDINGS

ROOT = Path(__file__).parent.parent

#: Larger seeds make a fuzzer slow, and find nothing more.
MAX_SEED = 4000

#: Seconds that one input may take.
SLOW = 5.0

PIECES = [
    *(b"null", b"true", b"-1", b"1e400", b"NaN", b"[]", b"{}", b'""', b'"\\ud800"', b"\xff", b"\x00", b'"', b"\\"),
    *(b"1" + b"0" * 400, b"[" * 200, b'{"a":' * 200, b",", b":", b'"__type__":"reference"', b'"children":[]'),
    *(b'"class":"MalformedPayload"', b'"raw":"e30="', b'"_aj_serialized"', b"\n", b"\xef\xbb\xbf", b"9" * 5000),
]
VALUES: list[Any] = [None, True, -1, 10**400, 1e300, "", "x" * 300, "\n", [], [[]], {}, {"a": None}, 0.5, "1.e999"]


def seeds() -> list[bytes]:
    """What is mutated: each string of the recordings that is an object, the trees, and the corpus."""
    found = {member.raw for member in loader.members()}
    for path in sorted(RECORDINGS.glob("*.json")):
        for value in _inside(json.loads(path.read_text("utf-8"))):
            if type(value) is dict and ("__type__" in value or "class" in value):
                found.add(json.dumps(value).encode())
            elif type(value) is str and value.startswith(("{", "[")):
                found.add(value.encode())
    return sorted(raw for raw in found if len(raw) <= MAX_SEED)


def _inside(value: Any) -> Iterator[Any]:
    yield value
    items = value.values() if type(value) is dict else value if type(value) is list else ()
    for item in items:
        yield from _inside(item)


def mutate(raw: bytes, other: bytes, chance: random.Random) -> bytes:
    """Bytes that differ in a few places."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(raw))
        end = min(len(raw), at + chance.randint(0, 8))
        kind = chance.randint(0, 6)
        if kind == 0:
            raw = raw[:at] + bytes([chance.randint(0, 255)]) + raw[at + 1 :]
        elif kind == 1:
            raw = raw[:at]
        elif kind == 2:
            raw = raw[:at] + other[chance.randint(0, len(other)) :]
        elif kind == 3:
            raw = raw[:at] + raw[end:]
        elif kind == 4:
            raw = raw[:at] + chance.choice(PIECES) + raw[end:]
        else:
            raw = _swap(raw, chance)
    return raw


def _swap(raw: bytes, chance: random.Random) -> bytes:
    """Another value in one place of a JSON value."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    places = [item for item in _inside(value) if type(item) in (dict, list) and item]
    if not places:
        return raw
    place = chance.choice(places)
    key: Any = chance.choice(list(place)) if type(place) is dict else chance.randrange(len(place))
    place[key] = chance.choice(VALUES)
    return json.dumps(value).encode()


def read_job(raw: bytes) -> None:
    """A payload: taken from a queue, promoted, buried."""
    assert type(codec.decode(promotion(raw, 1.5e9).payload)["class"]) is str
    try:
        job = payload.Payload.decode(raw)
    except PayloadError as e:
        dead = codec.decode(payload.buried(raw, e, now=1.5e9, queue="q"))
        assert type(dead["class"]) is str
        assert type(dead["args"]) is list
        return
    assert codec.decode(codec.encode(job.fields)) == job.fields
    read = json.loads(raw, parse_int=lambda digits: digits if len(digits) > 4000 else int(digits))
    if read["class"] != payload.WRAPPER_CLASS:  # else the job is the one inside of it
        assert read.keys() <= job.fields.keys()
    SidekiqMessage(job, "q", "m", "r").asdict()
    callbacks.delay_ahead(job.stack, 1.5e9)
    assert callbacks.load_stack(codec.decode_value(codec.encode(callbacks.dump_stack(job.stack)))) == job.stack
    codec.encode(payload.failed(job.fields, ValueError("x"), now=1.5e9, queue="q", backtrace=["a"]))
    active_job.decode_context(job.fields)


def read_value(raw: bytes) -> None:
    """Any JSON value: the same as the standard library reads, as a stack, a tree, and a stored step."""
    value = codec.decode_value(raw)
    assert codec.decode_value(codec.encode(value)) == value
    assert json.loads(raw) == value
    for read in (callbacks.load_stack, tree_reader.load, _tree):
        _refused(read, value)
    _refused(lambda text: references.follow({"chain": "c", "at": 0, "sha": references.digest(text)}, text), raw)


def _tree(value: Any) -> None:
    nodes.validate(value)
    tree_times.total_delay(value)
    tree_times.latest_start(value)
    tree_times.completes_at_once(value)


def _refused(read: Callable[[Any], Any], value: Any) -> None:
    """Read a value, which may be refused by the errors that a tree can have."""
    try:
        read(value)
    except FlowError:
        return


def read_record(raw: bytes) -> None:
    """A process record, and a registry entry."""
    infos = fleet.ruby_infos([raw])
    assert all(type(name) is str for name in fleet.queues_of(infos))
    for info in infos:
        fleet.name_of(info)
    try:
        entry = Entry.load("A", codec.decode(raw))
    except InvalidOptions:
        return
    codec.encode(entry.dump())


TARGETS: dict[str, Callable[[bytes], None]] = {"job": read_job, "value": read_value, "record": read_record}


def run(raw: bytes) -> str | None:
    """The target that failed, and how; None where all is as it should be."""
    for name, read in TARGETS.items():
        try:
            read(raw)
        except PayloadError as e:
            # All that read_job reads was refused inside of it.
            if name == "job":
                return f"{name}: {type(e).__name__}: {e}"
        except Exception as e:
            return f"{name}: {type(e).__name__}: {e}"[:500]
    return None


def smallest(raw: bytes) -> bytes:
    """A smaller input that fails as well."""
    size = len(raw) // 2
    while size:
        at = 0
        while at < len(raw):
            less = raw[:at] + raw[at + size :]
            if run(less):
                raw = less
            else:
                at += size
        size //= 2
    return raw


def main() -> int:
    """Fuzz until the time is over; 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the decoders.")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="of the mutations (default: the time)")
    options = parser.parse_args()
    logging.disable()
    seed = int(time.time()) if options.seed is None else options.seed
    chance, all_seeds = random.Random(seed), seeds()
    began = shown = time.monotonic()
    inputs, slowest = 0, 0.0
    failures: dict[str, dict[str, str]] = {}
    while (now := time.monotonic()) - began < options.seconds and len(failures) < 20:
        raw = mutate(chance.choice(all_seeds), chance.choice(all_seeds), chance)
        failed = run(raw)
        took = time.monotonic() - now
        inputs, slowest = inputs + 1, max(slowest, took)
        if took > SLOW:
            failed = f"slow: {took:.1f} s"
        if failed:
            kind = failed[:60]
            if kind not in failures:
                least = raw if failed.startswith("slow") else smallest(raw)
                failures[kind] = {"error": failed, "input": repr(least)}
                print(f"FAILED  {failed}\n        {least!r:.2000}", flush=True)
        if now - shown > 5:
            shown = now
            print(f"{now - began:5.0f} s  {inputs:9,} inputs  {len(failures)} failures", flush=True)
    report = {"seed": seed, "seconds": round(time.monotonic() - began), "seeds": len(all_seeds), "inputs": inputs,
              "slowest_ms": round(slowest * 1000), "failures": failures}  # fmt: skip
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "fuzz.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"{inputs:,} inputs from {len(all_seeds)} seeds, seed {seed}, slowest {report['slowest_ms']} ms: "
          f"{len(failures)} failures; build/fuzz.json")  # fmt: skip
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
