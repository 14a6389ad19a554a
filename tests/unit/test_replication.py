"""Settings of the replication, and what the replies to WAIT mean."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow import Replication, SidekiqBroker, WorkflowMiddleware
from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.store.replication import NO_WAIT, ReplicaWait, Shortage, Unconfirmed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("push", -1),
        ("push", True),
        ("push", "1"),
        ("push", None),
        ("acknowledge", -1),
        ("acknowledge", 1.0),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", 0.5),
    ],
)
def test_a_wrong_setting_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"Replication\({name}=\.\.\.\) must be a whole number") as caught:
        Replication(**{name: value})
    assert caught.value.value is value


def test_a_value_of_another_type_is_refused() -> None:
    wrong: Any = 1
    with pytest.raises(ConfigurationError, match=r"such as Replication\(push=1\), not 1"):
        SidekiqBroker(url="redis://localhost:1", replication=wrong)


def test_a_wait_that_the_socket_would_not_survive_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="make it 500 or less, or pass a longer socket_timeout"):
        SidekiqBroker(url="redis://localhost:1", socket_timeout=1, replication=Replication())
    with pytest.raises(ConfigurationError, match="make it 2500 or less"):
        SidekiqBroker(url="redis://localhost:1", replication=Replication(timeout=2501))
    SidekiqBroker(url="redis://localhost:1", replication=Replication(timeout=2500)).close()


def test_a_sidekiq_broker_has_its_own() -> None:
    broker = SidekiqBroker(url="redis://localhost:1")
    with pytest.raises(ConfigurationError, match="pass url, client and replication to the broker"):
        broker.add_middleware(WorkflowMiddleware(replication=Replication()))
    broker.close()


def test_nothing_is_sent_where_nothing_is_wanted() -> None:
    assert NO_WAIT.commands == ()
    assert SidekiqBroker(url="redis://localhost:1").connection.replicas.commands == ()


def test_replies() -> None:
    wait = ReplicaWait(2, 100)
    assert wait.shortage([b"OK", 2]) is None
    assert wait.shortage([b"OK", 3]) is None
    assert wait.shortage([b"OK", 1]) == Shortage(2, 1, 100)
    # Without the mark it is not known what was waited for.
    assert wait.shortage([redis.ResponseError("OOM no"), 2]) == Shortage(2, 0, 100, "OOM no")
    assert wait.shortage([b"OK", redis.ResponseError("NOPERM wait")]) == Shortage(2, 0, 100, "NOPERM wait")


def test_the_error_says_what_to_do() -> None:
    unconfirmed = Unconfirmed(1, Shortage(2, 1, 100, "because"))
    error = unconfirmed.of_job("jid")
    assert (error.value, error.wanted, error.got) == ("jid", 2, 1)
    assert str(error) == (
        "The job jid is in Redis, but confirmed by 1 of 2 replicas within 100 ms (because). It will run: do not send "
        "it again, or it runs twice. Until a replica has it, a failover loses it: see INFO replication for the state "
        "of the replicas."
    )
    assert "run() with this run id waits again" in str(unconfirmed.of_run("run"))
