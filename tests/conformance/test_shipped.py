"""The public suites, run against everything that is shipped."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

import pytest

from dramatiq_sidekiq_flow import (
    InlineCallbackStorage,
    RedisCallbackStorage,
    RedisHashMemory,
)
from dramatiq_sidekiq_flow.store import keys, runs
from dramatiq_sidekiq_flow.store.chains import StoredChains
from dramatiq_sidekiq_flow.store.connection import Connection, connect
from dramatiq_sidekiq_flow.store.outcomes import Done, NeedsPlan
from dramatiq_sidekiq_flow.store.runs import Walk
from dramatiq_sidekiq_flow.testing import BarrierConformance, CallbackStorageConformance, MemoryConformance
from dramatiq_sidekiq_flow.wire.barrier import NewBarrier


class OnRedis:
    connection: Connection

    @pytest.fixture(autouse=True)
    def _connect(self, redis_url: str) -> Any:
        self.connection = connect(redis_url)
        yield
        self.connection.close()


class TestRedisHashMemory(OnRedis, MemoryConformance):
    def make(self) -> RedisHashMemory:
        memory = RedisHashMemory()
        memory.bind(self.connection)
        return memory


class AtomicBarrier:
    """A group's barrier inside ``advance.lua``, driven as its finished steps drive it; a step follows the group."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def create(self, barrier_id: str, parties: int, ttl: int) -> None:
        # A run is started once, and its marker holds its barriers back with all the rest.
        barriers = [NewBarrier(_below(barrier_id), 1, ttl // 1000), NewBarrier(barrier_id, parties, ttl // 1000)]
        made = runs.writes(self.connection, barriers, {}, ())
        runs.start(barrier_id, made, ttl=ttl // 1000).run(self.connection)

    def wait(self, barrier_id: str, unit: str) -> bool:
        member, receipt = "host:1:nonce:python", secrets.token_hex(8)
        self.connection.call("HSET", keys.in_flight(member), receipt, b"a job")
        walk = [Walk(barrier_id, "n"), Walk(_below(barrier_id), "f")]
        outcome = runs.advance(member, receipt, unit, walk, ttl=60).run(self.connection)
        if outcome == Done():
            return False
        assert outcome == NeedsPlan(2)
        # Told which callback fires, it sends that plan. Another one may have come first.
        following = f"{barrier_id} {receipt}".encode()
        plan = runs.writes(self.connection, (), {"following": (following,)}, ())
        advance = runs.advance(member, receipt, unit, walk, ttl=60, planned=2, plan=plan)
        assert advance.run(self.connection) == Done()
        return following in self.connection.call("LRANGE", keys.queue("following"), 0, -1)

    def extend(self, barrier_id: str, ttl: int) -> None:
        for key in keys.barrier(barrier_id):
            self.connection.call("EXPIRE", key, ttl // 1000)


def _below(barrier_id: str) -> str:
    """The barrier below a group's: that of the chain which the group is a step of."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, barrier_id))


class TestAtomicBarrier(OnRedis, BarrierConformance):
    repeats = False

    def make(self) -> AtomicBarrier:
        return AtomicBarrier(self.connection)


class TestInlineCallbackStorage(CallbackStorageConformance):
    def make(self) -> InlineCallbackStorage:
        return InlineCallbackStorage()


class TestRedisCallbackStorage(OnRedis, CallbackStorageConformance):
    min_bytes = 2048

    def make(self) -> RedisCallbackStorage:
        storage = RedisCallbackStorage(self.min_bytes)
        storage.bind(StoredChains(self.connection))
        return storage


class TestRedisCallbackStorageOfEverything(TestRedisCallbackStorage):
    min_bytes = 0
