"""``sidekiq-flow web``: what it refuses, and a server of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import redis

from dramatiq_sidekiq_flow.cli.main import main
from dramatiq_sidekiq_flow.errors import ConfigurationError
from dramatiq_sidekiq_flow.web.page_server import check_address

from ..running import eventually
from .site import small_run


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIDEKIQ_FLOW_WEB_USERNAME", "SIDEKIQ_FLOW_WEB_PASSWORD", "SIDEKIQ_FLOW_APP", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--host", "0.0.0.0"], {}, "0.0.0.0 can be reached by other machines"),
        (["--host", "::"], {}, "can be reached by other machines"),
        (["--host", "example.org"], {}, "can be reached by other machines"),
        (["--username", "ops"], {}, "Give a password with --password-file or SIDEKIQ_FLOW_WEB_PASSWORD"),
        (["--username", "o:s"], {"SIDEKIQ_FLOW_WEB_PASSWORD": "secret"}, "the name has no colon"),
        ([], {"SIDEKIQ_FLOW_WEB_PASSWORD": "secret"}, "Name a user with --username"),
        (["--username", "ops"], {"SIDEKIQ_FLOW_WEB_PASSWORD": ""}, "it must not be empty"),
        (["--password-file", "nothing"], {}, "'nothing'"),
        (["--port", "0"], {}, "'--port'"),
    ],
)
def test_what_is_refused(
    arguments: list[str],
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["web", "--url", "redis://localhost:1/0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "secret" not in error


def test_addresses_without_a_password() -> None:
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        check_address(host, None)
    for host in ("0.0.0.0", "::", "10.0.0.7", "example.org", "", "127.0.0.1.example.org"):
        with pytest.raises(ConfigurationError, match="other machines"):
            check_address(host, None)
        check_address(host, ("ops", "secret"))


def test_without_a_redis_it_says_what_to_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["web"]) == 2
    assert "Name a Redis: app:broker, --url redis://..., or set SIDEKIQ_FLOW_APP" in capsys.readouterr().err
    assert main(["web", "app:broker", "--url", "redis://localhost:1/0"]) == 2
    assert "Name either app:broker or --url." in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['starlette'] = sys.modules['jinja2'] = None\n"
        "from dramatiq_sidekiq_flow.cli.main import main\n"
        "assert main(['web', '--help']) == 0\n"
        "sys.exit(main(['web', '--url', 'redis://localhost:1/0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "need jinja2, starlette. Install them: pip install 'dramatiq-sidekiq-flow[web]'" in done.stderr
    code = "import sys\nsys.modules['jinja2'] = None\nimport dramatiq_sidekiq_flow.web"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "ModuleNotFoundError: The web page needs jinja2. Install it: pip install" in done.stderr


def test_it_serves_until_it_is_ended(client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    small_run(client, "of-the-command")
    (tmp_path / "password").write_text("secret\n", "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["--port", port, "--username", "ops", "--password-file", "password", "--root-path", "/flow"]
    command = [sys.executable, "-m", "dramatiq_sidekiq_flow", "web", *options]
    environment = {**os.environ, "REDIS_URL": redis_url}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("ops", "secret")) as web:

            def answers() -> bool:
                assert process.poll() is None
                try:
                    return bool(web.get("/").status_code == 200)
                except httpx.ConnectError:
                    return False

            eventually(answers, 60.0, "an answer")
            # The proxy takes its prefix away; the browser sees it.
            assert 'href="/flow/runs/of-the-command"' in web.get("/").text
            assert web.get("/", auth=("ops", "wrong")).status_code == 401
            with web.stream("GET", "/events/runs/of-the-command") as stream:
                assert next(stream.iter_lines()) == "retry: 1000"
                # A browser that reads does not keep it.
                process.send_signal(signal.SIGTERM)
                output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGTERM
    assert output.splitlines()[0] == f"Runs: http://127.0.0.1:{port}/flow/  (Ctrl-C ends)"
    assert "secret" not in output
    assert "Traceback" not in output
