"""Checks of the server at start."""

from __future__ import annotations

from ..errors import ConfigurationError
from .connection import Connection
from .faults import LOST, ServerUnavailable
from .replication import Replication, ReplicaWait

#: The oldest Redis that has all commands of this library (LMOVE, RPOP with a count).
OLDEST = (6, 2)


def inspect(connection: Connection) -> list[str]:
    """Check version, mode and eviction policy of the server.

    Returns:
      Warnings for the log.

    Raises:
      ConfigurationError: if it is a Redis Cluster, or older than 6.2.
      redis.ConnectionError, redis.TimeoutError: if it cannot be reached, or
        refuses for now.
    """
    try:
        info = _info(connection)
    except ServerUnavailable as e:
        if not str(e).startswith("NOPERM"):
            raise
        return [
            "The Redis user may not call INFO, so the server's version, cluster mode and maxmemory-policy are not "
            "checked. It must be Redis 6.2 or newer, no Cluster, with noeviction."
        ]
    if info.get("redis_mode") == "cluster" or info.get("cluster_enabled") == "1":
        raise ConfigurationError(
            f"{connection.url} is a Redis Cluster. Like Sidekiq, this library needs a single Redis (or Sentinel): "
            "use another server.",
            "cluster",
        )
    version = info.get("redis_version", "7.0")
    if _numbers(version) < OLDEST:
        raise ConfigurationError(f"Redis {version} is too old; 6.2 or newer is needed.", version)
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return [f"maxmemory-policy is {policy!r}: Redis may evict jobs. Set it to noeviction."]
    return []


def look_at_replicas(connection: Connection, replication: Replication) -> list[str]:
    """Check whether enough replicas confirm a write.

    Returns:
      Warnings for the log.

    Raises:
      redis.ConnectionError, redis.TimeoutError: as :func:`inspect`.
    """
    replicas = ReplicaWait(max(replication.push, replication.acknowledge), replication.timeout)
    if not replicas.wanted:
        return []
    replies = connection.send(replicas.commands)
    if isinstance(replies[0], LOST):
        raise replies[0]
    shortage = replicas.shortage(replies)
    if shortage is None:
        return []
    return [
        f"A write at start was confirmed by {shortage}: send() and run() raise NotReplicated until that changes, if "
        "they wait for as many. Look at the replicas (INFO replication); the Redis user needs +wait."
    ]


def _info(connection: Connection) -> dict[str, str]:
    reply = connection.call("INFO")
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
    lines = [line.partition(":") for line in text.splitlines()]
    return {name: value for name, separator, value in lines if separator}


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())
