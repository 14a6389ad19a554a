"""Compact trees and numbers of steps: Ruby writes what Python writes, for random trees."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from dramatiq_sidekiq_flow.wire.dialect import NOOP_CLASSES
from dramatiq_sidekiq_flow.wire.nodes import Wire, is_ruby_constant
from dramatiq_sidekiq_flow.wire.run_tree import dump_tree
from dramatiq_sidekiq_flow.wire.step_numbers import number_steps
from interop.tests import companions
from interop.tests.processes import ruby

SEED = 20261127
TREES = 400

#: Longest JSON of a random tree.
MOST = 20_000

CLASSES = ["Docs::Thumb", "Docs::Scan", "extract", "docs.load step", "Sidekiq::Workflow::NoopWorker", "Lower::case"]
QUEUES = [None, None, "python", "ruby", ""]
POLICIES = [None, None, None, "done", "tree"]
TEXTS = ["", "x" * 61, "it's", 'say "no"', 'it\'s "no"', "\x00\x7f\x85\u00a0\u00ad\u2028\ud7ff\ue000\U0001f680\t\n\\"]
FLOATS = [1.0, -0.0, 9.5e15, -1234567890123456.5, 9007199254740993.0, 1e15, 1e15 + 0.125, 1e16, 1.5e-5, 1e-4, 1e300]
NUMBERS = [0, -1, 2**80, 10**90, -(10**90), *FLOATS]
CHARACTERS = "ab'\"\\ \n\r\té\u0300\u200b\u3000☃🚀"


def is_ruby(job: Mapping[str, Any]) -> bool:
    return is_ruby_constant(job["class"]) and job["class"] not in NOOP_CLASSES


def value(rng: random.Random, depth: int = 6) -> Any:
    kind = rng.randrange(9 if depth else 6)
    if kind >= 6:
        size = rng.choice((0, 1, 2, 11))
        values = [value(rng, depth - 1) for _ in range(size)]
        return values if kind == 6 else {text(rng): each for each in values}
    scalars: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.choice(NUMBERS),
        lambda: rng.uniform(-1e9, 1e9),
        lambda: rng.choice(TEXTS),
        lambda: text(rng),
    ]
    return scalars[kind]()


def text(rng: random.Random) -> str:
    return "".join(rng.choice(CHARACTERS) for _ in range(rng.choice((1, 3, 40, 59, 60, 70))))


def job(rng: random.Random, depth: int) -> Wire:
    wire: Wire = {"__type__": "job", "class": rng.choice(CLASSES), "args": []}
    for _ in range(rng.choice((0, 1, 1, 3))):
        wire["args"].append(value(rng))
    queue = rng.choice(QUEUES)
    if queue is not None:
        wire["queue"] = queue
    if wire["class"].endswith("NoopWorker") and rng.random() < 0.8:
        wire["wrapped"] = rng.choice(("docs.extract", "wait for go"))
    policy = rng.choice(POLICIES)
    if policy is not None:
        wire["swf_on_death"] = policy if policy == "done" else tree(rng, depth - 1)
    return wire


def tree(rng: random.Random, depth: int) -> Wire:
    kind = rng.choice(("job", "chain", "group", "with_delay")) if depth > 0 else "job"
    if kind == "job":
        return job(rng, depth)
    if kind == "with_delay":
        return {"__type__": kind, "delay": rng.choice((0, 5, 5.0, 1500, 0.5)), "task": tree(rng, depth - 1)}
    children: list[Wire] = []
    for _ in range(rng.randrange(4)):
        child = tree(rng, depth - 1)
        times = rng.choice((1, 1, 1, 2, 20, 21, 30)) if depth < 3 else 1
        children += [copy.deepcopy(child) for _ in range(times)]
    return {"__type__": kind, "children": children}


def python_answer(wire: Wire) -> dict[str, Any]:
    compact = [json.loads(dump_tree(wire, is_ruby, args)) for args in (True, False)]
    numbered = copy.deepcopy(wire)
    last, skipped = number_steps(numbered, lambda job: False)
    return {"compact": compact, "numbered": numbered, "last": last, "skipped": skipped}


def test_the_two_languages_write_the_same(server: EmbeddedServer, container: None, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    trees = [tree(rng, rng.randrange(5)) for _ in range(TREES)]
    trees = [each for each in trees if len(json.dumps(each)) < MOST]
    # Too large to show arguments, and folded, but for the last step.
    trees.append({"__type__": "group", "children": [job(rng, 0) for _ in range(1200)]})
    trees.append({"__type__": "group", "children": [job(random.Random(1), 0) for _ in range(1200)]})
    with companions.installed(tmp_path, "trees.rb") as environment:
        answers = json.loads(ruby(server.url, "-r./setup", "-e", "", stdin=json.dumps(trees), **environment))
    assert len(answers) == len(trees)
    for wire, answer in zip(trees, answers):
        assert answer == python_answer(wire), f"seed {SEED}: {json.dumps(wire)[:2000]}"
