"""Reading the recordings, and comparing Redis with them.

Ids, jids and times are whatever they were when the recording was made, so
two snapshots are compared after renaming ids in the order of appearance.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import redis

from .redis_values import as_text, fields, raws, scored, texts

RECORDINGS = Path(__file__).parent.parent / "interop" / "recordings"
VERSIONS = ("7.3.2", "8.1.7")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_STAMPS = ("created_at", "enqueued_at")
#: Keys that only we write.
_OURS = re.compile(r"swf:(?!mem:)|.*:u$")

Snapshot = dict[str, dict[str, Any]]


def cases() -> list[tuple[str, dict[str, Any]]]:
    """``(version-name, case)`` of every recorded workflow."""
    found = []
    for version in VERSIONS:
        recording = json.loads((RECORDINGS / f"steps-sidekiq-{version}.json").read_text("utf-8"))
        found += [(f"{version}-{case['name']}", case) for case in recording["cases"]]
    return found


def live(version: str) -> Snapshot:
    """All of Redis while a real Sidekiq ran."""
    snapshot: Snapshot = json.loads((RECORDINGS / f"live-sidekiq-{version}.json").read_text("utf-8"))["redis"]
    return snapshot


def snapshot(client: redis.Redis) -> Snapshot:
    """All of Redis, in the form of the recordings, without our own keys."""
    result = {}
    for raw in raws(client.keys()):
        name = raw.decode()
        if _OURS.match(name):
            continue
        kind = as_text(client.type(raw))
        value: Any
        if kind == "string":
            value = as_text(client.get(raw))
        elif kind == "list":
            value = texts(client.lrange(raw, 0, -1))
        elif kind == "set":
            value = sorted(texts(client.smembers(raw)))
        elif kind == "hash":
            value = {k: v.decode() for k, v in fields(client.hgetall(raw)).items()}
        else:
            value = [[m.decode(), score] for m, score in scored(client.zrange(raw, 0, -1, withscores=True))]
        result[name] = {"type": kind, "ttl": client.ttl(raw), "value": value}
    return result


def restore(client: redis.Redis, state: Snapshot) -> None:
    """Make Redis hold a snapshot."""
    client.flushdb()
    for name, entry in state.items():
        value = entry["value"]
        if entry["type"] == "string":
            client.set(name, value)
        elif entry["type"] == "list":
            client.rpush(name, *value)
        elif entry["type"] == "set":
            client.sadd(name, *value)
        elif entry["type"] == "hash":
            client.hset(name, mapping=value)
        else:
            client.zadd(name, dict(value))
        if entry["ttl"] > 0:
            client.expire(name, entry["ttl"])


def comparable(state: Snapshot) -> dict[str, Any]:
    """A snapshot with ids renamed, times reduced to their kind, and TTLs to "expires"."""
    names: dict[str, str] = {}

    def rename(text: str) -> str:
        return _UUID.sub(lambda m: names.setdefault(m.group(), f"id{len(names)}"), text)

    def job(raw: str, score: float | None = None) -> Any:
        fields = json.loads(raw)
        if score is not None:
            fields["(seconds until due)"] = round(score - seconds(fields["created_at"]), 1)
        for stamp in _STAMPS:
            if stamp in fields:
                fields[stamp] = "time"
        fields = without_numbers(fields)
        assert re.fullmatch(r"[0-9a-f]{24}", fields["jid"]), fields["jid"]
        fields["jid"] = "jid"
        return json.loads(rename(json.dumps(fields, sort_keys=True)))

    result: dict[str, Any] = {}
    # Jobs first: they name the barriers in an order that does not depend on ids.
    for name in sorted(state):
        entry = state[name]
        if entry["type"] == "list":
            result[name] = [job(raw) for raw in entry["value"]]
        elif entry["type"] == "zset":
            result[name] = [job(raw, score) for raw, score in entry["value"]]
    unnamed = []
    for name in sorted(state):
        entry = state[name]
        if entry["type"] == "string" and _UUID.match(name):
            assert entry["ttl"] > 0, f"{name} never expires"
            if name[:36] in names:
                result[rename(name)] = entry["value"]
            else:  # a barrier that released: no job names it
                unnamed.append([name[36:], entry["value"]])
        elif entry["type"] == "hash":
            result[rename(name)] = ({k: json.loads(v) for k, v in entry["value"].items()}, entry["ttl"] > 0)
        elif entry["type"] == "set":
            result[name] = sorted(entry["value"])
    result["released"] = sorted(unnamed)
    return result


def without_numbers(value: Any) -> Any:
    """JSON without the numbers of steps, which only we write."""
    if isinstance(value, dict):
        return {key: without_numbers(item) for key, item in value.items() if key != "swf_step"}
    if isinstance(value, list):
        return [without_numbers(item) for item in value]
    return value


def seconds(stamp: float) -> float:
    """7.x writes float seconds, 8.x integer milliseconds."""
    return stamp / 1000 if isinstance(stamp, int) else stamp


def expand_backtrace(text: str) -> list[str]:
    """The lines of an ``error_backtrace``."""
    lines: list[str] = json.loads(zlib.decompress(base64.b64decode(text)))
    return lines
