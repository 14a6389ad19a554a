"""Whose process is it?"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from typing import Any

import pytest

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.process import signals


def test_a_worker_process_has_its_parent_as_master() -> None:
    master = signals.Master()
    assert master.pid is None
    master.booted()
    assert master.pid == os.getppid()


def _ask(master: signals.Master, answers: Any) -> None:
    answers.put(master.pid)


def test_a_master_that_is_gone_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have its id by then."""
    master = signals.Master()
    master.booted()
    killed: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert master.pid is None
    master.stop()
    assert killed == []


def _work_elsewhere(url: str, answers: Any) -> None:
    import dramatiq.cli

    assert dramatiq.cli is not None
    broker = SidekiqBroker(url=url)
    worker = dramatiq.Worker(broker, worker_threads=1)
    worker.start()
    answers.put(broker.process.master.pid)
    worker.stop()
    broker.close()


def test_a_child_of_another_program_has_no_master(redis_url: str) -> None:
    """Though it has loaded dramatiq.cli, and its parent is of multiprocessing."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=_work_elsewhere, args=(redis_url, answers))
    child.start()
    assert answers.get(timeout=60) is None
    child.join()


def test_a_child_that_a_worker_process_forks_has_no_master() -> None:
    master = signals.Master()
    master.booted()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_ask, args=(master, answers))
    child.start()
    assert answers.get(timeout=60) is None
    child.join()


class Broker:
    quieted = False

    def stop_fetching(self) -> None:
        self.quieted = True


def test_an_embedded_worker_kills_nobody(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    signals.handle_signal("TERM", Broker(), None)
    assert killed == []
    assert "inside another program" in caplog.text


def test_the_master_is_stopped_only_while_it_is_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    signals.handle_signal("TERM", Broker(), os.getppid() + 1)
    assert killed == []
    signals.handle_signal("TERM", Broker(), os.getppid())
    assert killed == [(os.getppid(), signal.SIGTERM)]


def test_tstp_quiets() -> None:
    broker = Broker()
    signals.handle_signal("TSTP", broker, None)
    assert broker.quieted


def test_ttin_logs_where_each_thread_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    signals.handle_signal("TTIN", Broker(), None)
    assert "Thread MainThread" in caplog.text
    assert "test_ttin_logs_where_each_thread_is" in caplog.text


def test_another_signal_is_named(caplog: pytest.LogCaptureFixture) -> None:
    signals.handle_signal("KILL", Broker(), os.getppid())
    assert "'KILL' is not known" in caplog.text
