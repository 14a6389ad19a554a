"""Gives all parts of a broker another connection, for tests that disturb it."""

from __future__ import annotations

from dramatiq_sidekiq_flow import SidekiqBroker
from dramatiq_sidekiq_flow.process.heartbeat import Heartbeat
from dramatiq_sidekiq_flow.store.connection import Connection


def redirect(broker: SidekiqBroker, connection: Connection) -> None:
    """Let a broker, and all roles of its process, send everything through one connection."""
    process = broker.process
    broker.connection = process.connection = process.fetching = connection
    _redirect_heartbeat(process.heartbeat, connection)
    process.commit.connection = process.poller.connection = process.presence.connection = connection


def _redirect_heartbeat(heartbeat: Heartbeat, connection: Connection) -> None:
    heartbeat.connection = heartbeat.recovery.connection = heartbeat.upkeep.connection = connection
    assert heartbeat.reconciliation is not None
    heartbeat.reconciliation.connection = connection
