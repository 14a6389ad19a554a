"""What is counted, and where Sidekiq looks for it."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.process.execution_stats import ExecutionStats
from dramatiq_sidekiq_flow.process.fleet import queues_of, ruby_infos
from dramatiq_sidekiq_flow.process.presence import ProcessInfo, layouts
from dramatiq_sidekiq_flow.store import stats


def message(name: str) -> Any:
    return SimpleNamespace(actor_name=name, queue_name="python", payload=SimpleNamespace(raw=b'{"class":"X"}'))


def test_nothing_done_is_nothing_to_write() -> None:
    assert ExecutionStats().drain() is None


def test_counts_are_taken_once() -> None:
    stats = ExecutionStats()
    for failed in (False, False, True):
        stats.start(message("A"))
        stats.finish(message("A"), failed)
    stats.count_unknown()
    counts = stats.drain()
    assert counts is not None
    assert (counts.number, counts.processed, counts.failed) == (1, 4, 2)
    assert (counts.classes["A"].processed, counts.classes["A"].failed) == (3, 1)
    assert stats.drain() is None
    stats.count_unknown()
    again = stats.drain()
    assert again is not None
    assert (again.number, again.processed, dict(again.classes)) == (2, 1, {})


def test_no_count_is_lost_between_threads() -> None:
    stats, taken, done = ExecutionStats(), [], threading.Event()

    def work() -> None:
        for _ in range(2000):
            stats.start(message("A"))
            stats.finish(message("A"), False)

    def take() -> None:
        while not done.is_set():
            taken.append(stats.drain())

    threads = [threading.Thread(target=work) for _ in range(4)]
    taker = threading.Thread(target=take)
    for thread in (*threads, taker):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    taker.join()
    taken.append(stats.drain())
    found = [counts for counts in taken if counts is not None]
    assert sum(counts.processed for counts in found) == 8000
    assert sum(counts.classes["A"].processed for counts in found) == 8000
    assert sum(sum(counts.classes["A"].buckets) for counts in found) == 8000


def test_a_bar_in_a_name_does_not_divide_a_field() -> None:
    stats = ExecutionStats()
    stats.finish(message("a|b"), False)
    counts = stats.drain()
    assert counts is not None
    assert list(counts.classes) == ["a_b"]


@pytest.mark.parametrize(
    ("ms", "bucket"), [(0, 0), (19, 0), (20, 1), (280, 7), (334_999, 24), (335_000, 25), (10**9, 25)]
)
def test_buckets_are_sidekiqs(ms: int, bucket: int) -> None:
    done = stats.Executions()
    done.add(ms, failed=False)
    assert done.buckets.index(1) == bucket
    assert sum(done.buckets) == 1


def test_a_failures_time_is_not_kept() -> None:
    done = stats.Executions()
    done.add(5, failed=True)
    assert (done.ms, sum(done.buckets)) == (0, 0)


def test_names_of_single_digits() -> None:
    """Where the layouts pad, and where they do not."""
    moment = time.struct_time((2026, 3, 4, 5, 6, 7, 0, 0, 0))
    assert stats.minutes("7", moment) == {"j|20260304|5:6": 8 * 3600}
    assert stats.minutes("8", moment) == {"j|260304|5:0": 3 * 86_400, "j|260304|5:06": 8 * 3600}
    assert stats.histogram("7", "A", moment) == "A-04-05:6"
    assert stats.histogram("8", "A", moment) == "h|A-4-5:6"


@pytest.mark.parametrize(
    ("infos", "expected"),
    [
        ([], ("7", "8")),
        ([b'{"version":"7.3.2"}'], ("7",)),
        ([b'{"version":"8.1.7"}'], ("8",)),
        ([b'{"version":"8.1.7"}', b'{"version":"7.3.2"}'], ("7", "8")),
        ([b'{"version":"7.3.2"}', b'{"version":"8.0.0","language":"python"}', None, b"{not json"], ("7",)),
        ([b'{"hostname":"no version"}'], ("7", "8")),
    ],
)
def test_the_fleet_decides_the_layout(infos: list[bytes | None], expected: tuple[str, ...]) -> None:
    assert layouts(ruby_infos(infos)) == expected


def test_whatever_a_process_says_of_its_queues_is_survived() -> None:
    infos = [
        b'{"queues": ["a", 7, null]}',
        b'{"queues": "b"}',
        b"{}",
        b"[",
        None,
        b'{"language": "python", "queues": ["c"]}',
    ]
    assert queues_of(ruby_infos(infos)) == {"a"}


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="metrics"):
        ProcessInfo(metrics="6")


def test_threads_are_named_as_sidekiq_names_them() -> None:
    stats = ExecutionStats()
    stats.start(message("A"))
    (name,) = stats.running()
    assert int(name, 36) > 0
