"""``sidekiq-flow runs``: what is printed, and the exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from fcntl import ioctl
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from dramatiq_sidekiq_flow.cli import steering_commands
from dramatiq_sidekiq_flow.cli.main import main
from dramatiq_sidekiq_flow.cli.runs_commands import CANCELLABLE, STATES
from dramatiq_sidekiq_flow.runs import query, run_retry, steering
from dramatiq_sidekiq_flow.store import run_records

from ..redis_values import as_bytes
from ..running import eventually

SCRIPT = str(Path(sys.executable).parent / "sidekiq-flow")
STARTED = 1_795_000_000.0
TREE = {"chain": [{"step": "extract", "queue": "python"}, {"step": "Load", "queue": "ruby", "ruby": True}]}


def record(client: redis.Redis, run_id: str, state: str = "running", at: float = STARTED, **fields: Any) -> None:
    """Write the record of a run of two steps."""
    values: dict[Any, Any] = {
        "state": state,
        "started": f"{at:.3f}",
        "total": 2,
        "tree": json.dumps(TREE),
        "keep": 604_800,
        **fields,
    }
    client.hset(f"swf:flow:{run_id}", mapping=values)
    client.hset(f"swf:flow:{run_id}:times", "0", "")
    client.zadd(f"swf:flows:{state}", {run_id: at})
    if "template" in fields:
        client.zadd(f"swf:flows:template:{fields['template']}", {run_id: at})
    for tag in json.loads(fields.get("tags", "[]")):
        client.zadd(f"swf:flows:tag:{tag}", {run_id: at})


def push(client: redis.Redis, run_id: str, step: int = 1) -> None:
    """Put the job of a step into its queue."""
    name, queue = (("extract", "python"), ("Load", "ruby"))[step - 1]
    job = {"class": name, "args": [], "jid": f"j{step}", "queue": queue, "workflow_run_id": run_id, "swf_step": step}
    client.sadd("queues", queue)
    client.lpush(f"queue:{queue}", json.dumps(job))


def end(client: redis.Redis, run_id: str, state: str = "done") -> None:
    """Write the end of a run."""
    for queue in ("python", "ruby"):
        client.delete(f"queue:{queue}")
    client.hset(f"swf:flow:{run_id}", mapping={"state": state, "finished": f"{STARTED + 90:.3f}"})
    client.zrem("swf:flows:running", run_id)
    client.zadd(f"swf:flows:{state}", {run_id: STARTED})


def fail(client: redis.Redis, run_id: str, message: str = "no pages") -> None:
    """Bury the first step of a run."""
    error = {"jid": "j1", "class": "extract", "queue": "python", "error_class": "ValueError", "error_message": message}
    client.hset(f"swf:flow:{run_id}:failed", "1", json.dumps({**error, "at": STARTED + 5}))
    job = {"class": "extract", "args": [], "jid": "j1", "queue": "python", "workflow_run_id": run_id, "swf_step": 1}
    client.zadd("dead", {json.dumps({**job, "error_class": "ValueError", "error_message": message}): STARTED + 5})
    end(client, run_id, "failed")
    client.hdel(f"swf:flow:{run_id}", "finished")


@contextlib.contextmanager
def at_once(client: redis.Redis) -> Iterator[redis.Redis]:
    """A client whose writes are made together: a look at the run sees all of them, or none."""
    with client.pipeline() as pipeline:
        yield pipeline
        pipeline.execute()


class Command:
    """The command, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.code, self.error = 0, ""

    def __call__(self, *arguments: str) -> str:
        self.code = main(["runs", *arguments])
        written = self.capsys.readouterr()
        self.error = written.err
        return written.out


@pytest.fixture
def command(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv("REDIS_URL", redis_url)
    for name in ("COLUMNS", "SIDEKIQ_FLOW_APP", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return Command(capsys)


def test_the_states_are_those_that_are_recorded() -> None:
    assert tuple(run_records.STATES) == STATES
    assert query.CANCELLABLE == CANCELLABLE
    for name in ("PAUSABLE", "RESUMABLE"):
        assert getattr(steering, name) == getattr(steering_commands, name)
    assert {state for states in steering.RETRIABLE.values() for state in states} == {*steering_commands.RETRIABLE}
    assert tuple(steering.RETRIABLE) == run_retry.MODES == steering_commands.MODES


# -- list ---------------------------------------------------------------------


def test_a_list_has_the_newest_first(command: Command, client: redis.Redis) -> None:
    record(client, "run-1", template="nightly", tags='["acme", "eu"]')
    record(client, "run-2", "done", STARTED + 10, finished=STARTED + 20)
    out = command("list")
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["RUN", "STATE", "DONE"],
        ["run-2", "done", "2/2"],
        ["run-1", "running", "0/2"],
    ]
    assert out.splitlines()[2].endswith("nightly   acme, eu")
    assert command.code == 0


def test_a_list_is_narrowed(command: Command, client: redis.Redis) -> None:
    for number, state in enumerate(("running", "done", "done", "failed")):
        record(client, f"run-{number}", state, STARTED + number, template=f"t{number}", tags=json.dumps([f"g{number}"]))
    ids: Callable[[str], list[str]] = lambda out: [line.split()[0] for line in out.splitlines()[1:]]  # noqa: E731
    assert ids(command("list", "--state", "done")) == ["run-2", "run-1"]
    assert ids(command("list", "--template", "t3")) == ["run-3"]
    assert ids(command("list", "--tag", "g0")) == ["run-0"]
    assert ids(command("list", "--limit", "2")) == ["run-3", "run-2"]
    assert ids(command("list", "--limit", "2", "--after", "run-2")) == ["run-1", "run-0"]
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(STARTED + 2))
    assert ids(command("list", "--since", since)) == ["run-3", "run-2"]
    assert command("list", "--since", "1s", "--state", "running") == "No runs.\n"


def test_a_terminal_shows_how_to_go_on(redis_url: str, client: redis.Redis) -> None:
    for number in range(2):
        record(client, f"run-{number}", at=STARTED + number)
    terminal = Terminal(SCRIPT, "runs", "list", "--url", redis_url, "--limit", "1")
    assert terminal.end() == 0
    assert "More: --after run-1" in terminal.text


def test_a_list_as_json(command: Command, client: redis.Redis) -> None:
    assert command("list", "--json") == "[]\n"
    record(client, "run-1", template="nightly", tags='["acme"]')
    (run,) = json.loads(command("list", "--json"))
    assert run["id"] == "run-1"
    assert run["tags"] == ["acme"]
    assert run["started_at"] == "2026-11-18T11:06:40.000+00:00"
    assert not {"steps", "failures", "memory"} & run.keys()


@pytest.mark.parametrize("width", [80, 120])
def test_a_list_fits_the_terminal(
    width: int, command: Command, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run_id = "3f0c1a52-3b0e-4c57-9f8e-0a4f5f6b7c8d"
    record(client, run_id, template="a long name of a template " * 8, tags='["a long tag, a long tag, a long tag"]')
    lines = command("list").splitlines()
    assert run_id in lines[1]
    assert max(map(len, lines)) <= width
    monkeypatch.setenv("COLUMNS", "30")
    assert re.search(f"^{run_id}  running +0/2 ", command("list"), re.M)
    monkeypatch.delenv("COLUMNS")
    assert max(map(len, command("list").splitlines())) > 200


APPS = {
    "SidekiqBroker": """
from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware
broker = SidekiqBroker(url={url!r})
broker.add_middleware(WorkflowMiddleware())
""",
    "another broker": """
from dramatiq.brokers.stub import StubBroker
from dramatiq_sidekiq_flow import WorkflowMiddleware
broker = StubBroker()
broker.add_middleware(WorkflowMiddleware(url={url!r}))
""",
}


@pytest.mark.parametrize("kind", APPS)
def test_the_app_tells_where_redis_is(
    kind: str, redis_url: str, client: redis.Redis, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs_app.py").write_text(APPS[kind].format(url=redis_url), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "runs_app", raising=False)
    record(client, "run-1")
    push(client, "run-1")
    assert "run-1" in command("list", "--app", "runs_app:broker")
    monkeypatch.setenv("SIDEKIQ_FLOW_APP", "runs_app:broker")
    assert "run-1" in command("show", "run-1")
    assert command.code == 0


# -- show ---------------------------------------------------------------------


def test_a_run_is_shown(command: Command, client: redis.Redis) -> None:
    record(client, "run-1", template="nightly", tags='["acme"]')
    push(client, "run-1")
    out = command("show", "run-1")
    assert re.search(r"^Run +run-1\nState +running\nTemplate +nightly\nTags +acme\nStarted +2026-11-18", out)
    assert "0 of 2 done, 1 waiting" in out
    assert re.search(r"extract.*python", out)
    assert command.code == 0


def test_a_failed_run_is_1(command: Command, client: redis.Redis) -> None:
    record(client, "run-1")
    fail(client, "run-1")
    assert "failed 1 extract: ValueError: no pages" in command("show", "run-1")
    assert command.code == 1


def test_the_steps_of_a_run(command: Command, client: redis.Redis) -> None:
    record(client, "run-1")
    client.hset("swf:flow:run-1:times", "1", f"{STARTED} {STARTED + 30} 0 host:1:ab")
    push(client, "run-1", 2)
    lines = [line.split() for line in command("show", "run-1", "--steps").splitlines()]
    assert ["1", "extract", "done", "python"] in [line[:4] for line in lines]
    assert ["2", "Load", "queued", "ruby"] in [line[:4] for line in lines]
    assert "steps" not in json.loads(command("show", "run-1", "--json"))
    run = json.loads(command("show", "run-1", "--json", "--steps"))
    assert [step["name"] for step in run["steps"]] == ["extract", "Load"]
    assert run["steps"][0]["ended_at"] == "2026-11-18T11:07:10.000+00:00"


def test_a_step_that_is_inferred_has_a_star_and_one_that_waits_its_time(command: Command, client: redis.Redis) -> None:
    record(client, "run-1")
    job = {"class": "Load", "args": [], "jid": "j2", "queue": "ruby", "workflow_run_id": "run-1", "swf_step": 2}
    client.zadd("schedule", {json.dumps(job): STARTED + 86_400})
    first, second = (line.split() for line in command("show", "run-1", "--steps").splitlines()[-2:])
    assert first[:4] == ["1", "extract", "done*", "python"]
    due = datetime.fromtimestamp(STARTED + 86_400).strftime("%m-%d %H:%M:%S")
    assert second[:7] == ["2", "Load", "scheduled", "ruby", "due", *due.split()]


def test_the_steps_of_a_large_run_are_one_table(command: Command, client: redis.Redis) -> None:
    tree = {"times": 2500, "node": {"step": "extract", "queue": "python"}}
    record(client, "run-1", "done", tree=json.dumps({"group": [tree]}), total=2500, finished=STARTED + 9)
    lines = command("show", "run-1", "--steps").splitlines()
    assert sum(line.split()[:2] == ["NO", "STEP"] for line in lines) == 1
    assert sum(" done* " in line for line in lines[lines.index("") :]) == 2500


def test_text_from_redis_does_not_control_the_terminal(command: Command, client: redis.Redis) -> None:
    record(client, "run-1", template="\x1b[31m[bold]red")
    fail(client, "run-1", "\x1b]0;title\x07 [link=x]y[/link]\nsecond")
    out = command("show", "run-1") + command("list") + command("show", "run-1", "--steps")
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]red" in out
    assert "[link=x]y[/link] second" in out


def test_a_run_that_is_not_there_is_an_error(command: Command) -> None:
    for arguments in (("show", "run-404"), ("watch", "run-404"), ("wait", "run-404")):
        assert command(*arguments) == ""
        assert command.code == 2
        assert "run-404" in command.error
        assert command.error.count("\n") == 1


def test_a_redis_that_is_down_is_an_error(command: Command) -> None:
    for arguments in (("list",), ("show", "x"), ("watch", "x"), ("wait", "x")):
        command(*arguments, "--url", "redis://:secret@127.0.0.1:1/0")
        assert command.code == 2
        assert "127.0.0.1:1" in command.error
        assert "secret" not in command.error
        assert command.error.count("\n") == 1


# -- wait and watch -----------------------------------------------------------


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 1), ("cancelled", 1)])
@pytest.mark.parametrize("name", ["wait", "watch"])
def test_the_exit_code_is_the_end(
    name: str, state: str, code: int, redis_url: str, client: redis.Redis, command: Command
) -> None:
    record(client, "run-1")
    push(client, "run-1")
    running = subprocess.Popen((SCRIPT, "runs", name, "run-1", "--url", redis_url), stdout=subprocess.PIPE, text=True)
    reads = _reads(client)
    eventually(lambda: _reads(client) > reads, what="a look at the run")
    with at_once(client) as writing:
        if state == "failed":
            fail(writing, "run-1")
        else:
            end(writing, "run-1", state)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == code
    assert out.splitlines()[-1].split(" ")[-1 if name == "wait" else 1].rstrip(":") == state


def _reads(client: redis.Redis) -> int:
    """How often the field of a record was read."""
    stats: Any = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("hget", "hmget", "hgetall"))


def test_waiting_has_an_end(command: Command, client: redis.Redis) -> None:
    record(client, "run-1")
    push(client, "run-1")
    assert command("wait", "run-1", "--timeout", "0.2") == ""
    assert command.code == 2
    assert command.error.count("\n") == 1


def test_changes_are_lines_in_a_pipe(redis_url: str, client: redis.Redis) -> None:
    record(client, "run-1")
    push(client, "run-1")
    running = subprocess.Popen(
        (SCRIPT, "runs", "watch", "run-1", "--url", redis_url), stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    seen, reads = [running.stdout.readline()], _reads(client)
    eventually(lambda: _reads(client) > reads + 10, what="looks that show nothing new")
    with at_once(client) as writing:
        writing.delete("queue:python")
        writing.hset("swf:flow:run-1:times", "1", f"{STARTED} {STARTED + 30} 0 host:1:ab")
        push(writing, "run-1", 2)
    seen.append(running.stdout.readline())
    with at_once(client) as writing:
        writing.hset("swf:flow:run-1:times", "2", f"{STARTED} {STARTED + 30} 0 host:1:ab")
        end(writing, "run-1")
    seen += running.stdout
    assert running.wait(60) == 0
    said = [line.split(" ", 1)[1].strip() for line in seen]
    assert [said[0], said[-1]] == ["running: 0 of 2 done, 1 waiting", "done: 2 of 2 done"]
    # A look while the jobs change place may show one more state.
    assert "running: 1 of 2 done, 1 waiting" in said
    assert not [line for line, after in pairwise(said) if line == after]


class Terminal:
    """The command on a terminal of 80 columns and 24 lines."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            unset = ("COLUMNS", "LINES", "NO_COLOR", "SIDEKIQ_FLOW_APP")
            kept = {name: value for name, value in os.environ.items() if name not in unset}
            ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            os.execve(command[0], command, {**kept, "TERM": "xterm-256color", **environment})
        self.text = ""

    def read(self) -> bool:
        """Read what was written; False at the end."""
        try:
            written = os.read(self.descriptor, 65_536)
        except OSError:  # Linux: the other side is closed
            written = b""
        self.text += written.decode("utf-8", "replace")
        return bool(written)

    def read_until(self, text: str) -> None:
        while text not in self.text:
            assert self.read(), self.text

    def end(self) -> int:
        while self.read():
            pass
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_terminal_shows_the_run_until_its_end(redis_url: str, client: redis.Redis) -> None:
    tree = {"group": [{"step": f"part_{number}", "queue": "python"} for number in range(200)]}
    record(client, "run-1", tree=json.dumps(tree), total=200, tags=json.dumps(["a long tag"] * 200))
    push(client, "run-1")
    terminal = Terminal(SCRIPT, "runs", "watch", "run-1", "--url", redis_url)
    terminal.read_until("lines below")
    with at_once(client) as writing:
        fail(writing, "run-1")
    assert terminal.end() == 1
    assert "\x1b[1;31mfailed" in terminal.text
    shown = _last_screen(terminal.text)
    assert any("ValueError: no pages" in line for line in shown)
    assert len(shown) <= 24
    assert max(map(len, shown)) <= 80


def _last_screen(text: str) -> list[str]:
    last = re.split(r"(?:\r?\x1b\[2K|\x1b\[1A)+", text)[-1]
    return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", last).replace("\r", "").strip("\n").split("\n")


def test_no_color_leaves_words(redis_url: str, client: redis.Redis) -> None:
    record(client, "run-1", "failed")
    colours = re.compile(r"\x1b\[[\d;]*3\dm")
    terminal = Terminal(SCRIPT, "runs", "list", "--url", redis_url)
    assert terminal.end() == 0
    assert colours.search(terminal.text)
    terminal = Terminal(SCRIPT, "runs", "list", "--url", redis_url, NO_COLOR="1")
    assert terminal.end() == 0
    assert not colours.search(terminal.text)
    assert "failed" in terminal.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_ended_watch_shows_the_cursor_again(
    number: signal.Signals, code: int, redis_url: str, client: redis.Redis
) -> None:
    record(client, "run-1")
    push(client, "run-1")
    terminal = Terminal(SCRIPT, "runs", "watch", "run-1", "--url", redis_url)
    terminal.read_until("extract")
    os.kill(terminal.pid, number)
    assert terminal.end() == code
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


# -- cancel -------------------------------------------------------------------


def test_a_run_is_cancelled(command: Command, client: redis.Redis) -> None:
    record(client, "run-1")
    push(client, "run-1")
    assert command("cancel", "run-1", "--reason", "wrong data") == "run-1\n"
    assert command.code == 0
    assert client.hmget("swf:flow:run-1", "state", "reason") == [b"cancelled", b"wrong data"]
    assert "wrong data" in command("show", "run-1")
    assert not client.exists("queue:python")


def test_a_run_that_is_done_cannot_be_cancelled(command: Command, client: redis.Redis) -> None:
    record(client, "run-1")
    end(client, "run-1")
    assert (command("cancel", "run-1"), command.code) == ("", 1)
    assert json.loads(command("cancel", "run-1", "--json")) == []


def test_runs_are_cancelled_by_a_filter(command: Command, client: redis.Redis) -> None:
    for run_id in ("run-1", "run-2", "run-3"):
        record(client, run_id, template="" if run_id == "run-3" else "nightly")
    assert sorted(json.loads(command("cancel", "--template", "nightly", "--json"))) == ["run-1", "run-2"]
    assert client.hget("swf:flow:run-3", "state") == b"running"
    assert (command("cancel", "--template", "nightly"), command.code) == ("", 0)


@pytest.mark.parametrize("arguments", [(), ("run-1", "--state", "failed")])
def test_a_run_or_a_filter_is_needed(command: Command, client: redis.Redis, arguments: tuple[str, ...]) -> None:
    record(client, "run-1")
    assert command("cancel", *arguments) == ""
    assert command.code == 2
    assert "takes the id of a run, or a filter" in command.error


# -- pause, resume, retry -------------------------------------------------------


def test_a_run_is_paused_and_resumed(command: Command, client: redis.Redis) -> None:
    record(client, "run-1")
    push(client, "run-1")
    assert command("pause", "run-1", "--reason", "a fault") == "run-1\n"
    assert client.hmget("swf:flow:run-1", "state", "reason") == [b"paused", b"a fault"]
    assert not client.exists("queue:python")
    assert "a fault" in command("show", "run-1")
    assert json.loads(command("resume", "--state", "paused", "--json")) == ["run-1"]
    assert client.llen("queue:python") == 1
    assert (command("resume", "run-1"), command.code) == ("run-1\n", 0)


def test_a_run_is_retried(command: Command, client: redis.Redis) -> None:
    record(client, "run-1", "failed")
    push(client, "run-1")
    client.zadd("dead", {as_bytes(client.rpop("queue:python")): 1})
    assert json.loads(command("retry", "--state", "failed", "--json")) == ["run-1"]
    assert client.llen("queue:python") == 1
    assert (command("retry", "run-1"), command.code) == ("run-1\n", 0)


@pytest.mark.parametrize("verb", ["pause", "resume", "retry"])
def test_a_run_that_is_done_cannot_be_steered(command: Command, client: redis.Redis, verb: str) -> None:
    record(client, "run-1")
    end(client, "run-1")
    assert (command(verb, "run-1"), command.code) == ("", 1)
    assert (command(verb), command.code) == ("", 2)
