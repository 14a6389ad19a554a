"""Whose process is it?"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from typing import Any

import dramatiq.cli
import pytest

from dramatiq_sidekiq_flow.broker import signals


def _ask(answers: Any) -> None:
    answers.put(signals.master())


def test_a_child_of_another_program_has_no_master() -> None:
    """Though it has loaded dramatiq.cli, and its parent is of multiprocessing."""
    assert dramatiq.cli is not None
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=_ask, args=(answers,))
    child.start()
    assert answers.get(timeout=60) is None
    child.join()


def test_this_program_has_no_master() -> None:
    assert signals.master() is None


class Broker:
    quieted = False

    def stop_fetching(self) -> None:
        self.quieted = True


def test_an_embedded_worker_kills_nobody(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    signals.obey("TERM", Broker(), None)
    assert killed == []
    assert "inside another program" in caplog.text


def test_the_master_is_stopped_only_while_it_is_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    signals.obey("TERM", Broker(), os.getppid() + 1)
    assert killed == []
    signals.obey("TERM", Broker(), os.getppid())
    assert killed == [(os.getppid(), signal.SIGTERM)]


def test_tstp_quiets() -> None:
    broker = Broker()
    signals.obey("TSTP", broker, None)
    assert broker.quieted


def test_ttin_logs_where_each_thread_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    signals.obey("TTIN", Broker(), None)
    assert "Thread MainThread" in caplog.text
    assert "test_ttin_logs_where_each_thread_is" in caplog.text


def test_another_signal_is_named(caplog: pytest.LogCaptureFixture) -> None:
    signals.obey("KILL", Broker(), os.getppid())
    assert "'KILL' is not known" in caplog.text
