"""What a process holds in flight, and how many of the jobs that it fetches begin at once."""

from __future__ import annotations

import threading

import pytest

from dramatiq_sidekiq_flow.broker.in_flight import MAX_WINDOW, MEASURED, WINDOW_TIME, InFlight, reserve
from dramatiq_sidekiq_flow.store import keys


@pytest.mark.parametrize(
    ("threads", "held", "count", "free"),
    [(4, 0, 8, 4), (4, 0, 2, 2), (4, 3, 8, 1), (4, 4, 8, 0), (4, 9, 8, 0), (0, 0, 8, 0)],
)
def test_as_many_jobs_begin_as_threads_are_idle(threads: int, held: int, count: int, free: int) -> None:
    window, other = InFlight("a", "m:a"), InFlight("b", "m:b")
    other.add([(f"1:{n}", b"") for n in range(held)])
    for _ in range(held // 2):
        other.take()
    assert reserve(window, [window, other], threads, count) == free
    # Sent again, it has nothing more.
    assert reserve(window, [window, other], threads, count) == free


def test_no_thread_is_idle_for_two_fetches() -> None:
    windows = [InFlight(str(n), f"m:{n}") for n in range(8)]
    given: list[int] = []
    threads = [
        threading.Thread(target=lambda window=window: given.append(reserve(window, windows, 5, 2)))
        for window in windows
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == [0, 0, 0, 0, 0, 1, 2, 2]
    # What was fetched is held; what was not is free again.
    for window in windows:
        window.reserved = 0
    assert reserve(windows[0], windows, 5, 9) == 5


def test_a_burst_is_more_than_all_threads_could_mark() -> None:
    window = InFlight("a", "m:a")
    window.allow(4)
    window._since -= 1.0
    window._settled = int(4 / MEASURED) + 20
    assert window.burst()
    window._resize()
    # Within the time that is measured, what was measured last holds.
    assert window.burst()
    window._since -= 60.0
    assert not window.burst()


def test_it_holds_what_ends_within_a_moment() -> None:
    window = InFlight("a", "m:a")
    window.allow(16)
    for rate, wanted in ((0, 16), (1000, 1000 * WINDOW_TIME), (10**6, MAX_WINDOW)):
        for _ in range(20):
            window._since -= 1.0
            window._settled = rate
            window._resize()
        assert window.free_slots() == pytest.approx(wanted, abs=2)


def test_a_job_is_held_at_each_instant() -> None:
    window = InFlight("a", "m:a")
    base = window.next_base()
    assert window.unknown([f"{base}:1?".encode()], []) == set()
    window.add([(f"{base}:1?", b"x"), (f"{base}:2~", b"y")])
    receipts = [f"{base}:1".encode(), f"{base}:2~".encode()]
    assert window.unknown(receipts, []) == set()
    taken = window.take()
    assert window.unknown(receipts, []) == set()
    window.put_back(*taken)
    assert window.take() == taken
    assert window.held == 2
    window.discard(taken[0])
    assert window.unknown(receipts, []) == {receipts[0]}
    assert window.unknown(receipts, [taken[0]]) == set()
    # A suspect in the hash of a live process waits for nobody.
    assert window.unknown([f"{base}:2!".encode(), b"\xff"], []) == {f"{base}:2!".encode(), b"\xff"}


def test_the_end_of_a_trial_is_told_once() -> None:
    window = InFlight("a", "m:a")
    told: list[int] = []
    window.trial_ended = lambda: told.append(1)
    window.add_trial(b"x")
    window.add([("ff:1", b"y")])
    receipt, _ = window.take()
    window.discard("ff:1")
    assert not told
    window.discard(receipt.removesuffix("?"))
    window.discard(receipt)
    assert told == [1]


@pytest.mark.parametrize(
    ("receipt", "parsed"),
    [
        ("1f:3", ("1f", 3, "")),
        ("1f:3?", ("1f", 3, "?")),
        ("1f:3~", ("1f", 3, "~")),
        ("1f:12!", ("1f", 12, "!")),
        ("", ("", 0, "")),
        ("?", ("?", 0, "")),
        ("a:", ("a:", 0, "")),
        ("a:x", ("a:x", 0, "")),
        ("a:\u00b2", ("a:\u00b2", 0, "")),
        ("a:" + "9" * 5000, ("a:" + "9" * 5000, 0, "")),
    ],
)
def test_receipts(receipt: str, parsed: tuple[str, int, str]) -> None:
    assert keys.parse_receipt(receipt) == parsed


def test_receipts_sort_as_they_were_fetched() -> None:
    ordered = ["odd", "9:1", "9:2?", "9:10~", "a:1", "10:1!"]
    assert sorted(set(ordered), key=keys.fetch_order) == ordered


def test_what_a_fetch_has_just_moved_is_not_unknown() -> None:
    window = InFlight("python", "member")
    base = window.next_base()
    assert window.next_base() == base
    moved = f"{base}:1".encode()
    assert window.unknown([moved, b"other:1"], []) == {b"other:1"}
    window.add([])
    assert window.unknown([moved], []) == {moved}
    trial = window.trial_base()
    assert window.trial_base() == trial
    assert window.unknown([f"{trial}:1?".encode()], []) == set()
