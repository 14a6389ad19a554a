"""``sidekiq-flow``: its help, its errors, its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dramatiq_sidekiq_flow import __version__
from dramatiq_sidekiq_flow.cli.bridge_command import bridge
from dramatiq_sidekiq_flow.cli.command_line import root
from dramatiq_sidekiq_flow.cli.main import main

SCRIPT = str(Path(sys.executable).parent / "sidekiq-flow")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def commands(group: click.Group, *before: str) -> Iterator[list[str]]:
    """The names of each command, with those of the groups that it is in."""
    yield [*before]
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield [*before, name]


def test_the_script_and_the_module_are_the_same_command() -> None:
    done = run(SCRIPT, "--version")
    assert (done.returncode, done.stdout) == (0, f"sidekiq-flow {__version__}\n")
    assert run(sys.executable, "-m", "dramatiq_sidekiq_flow", "--version").stdout == done.stdout


def test_errors_begin_with_the_command_that_was_typed() -> None:
    assert run(SCRIPT, "stubs").stderr.startswith("sidekiq-flow stubs: ")
    assert run(sys.executable, "-m", "dramatiq_sidekiq_flow", "stubs").stderr.startswith(
        "python -m dramatiq_sidekiq_flow stubs: "
    )


def test_help_and_completion_do_not_load_the_library() -> None:
    code = (
        "import sys\n"
        "from dramatiq_sidekiq_flow.cli.main import main\n"
        "assert main(['runs', '--help']) == main(['completion', 'zsh']) == 0\n"
        "sys.exit(bool({'dramatiq', 'redis', 'rich'} & set(sys.modules)))"
    )
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("names", [*commands(root)], ids=" ".join)
def test_help_fits_into_80_columns(
    names: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*names, "-h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(['sidekiq-flow', *names])} ")
    assert max(map(len, lines)) <= 80
    # Click shortens the lines of its list of commands.
    assert not [line for line in lines if line.endswith("...") and "COMMAND" not in line]


def test_a_group_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Exit codes:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "sidekiq-flow: No such command 'nothing'."),
        (["release", "app:broker"], "sidekiq-flow release: Missing argument 'JID'."),
        (["release", "app:broker", "j1", "--members", "x"], "'--members'"),
        (["stubs"], "sidekiq-flow stubs: Name either app:broker or --from-manifest FILE."),
        (["stubs", "app:broker", "--from-manifest", "x"], "Name either app:broker or"),
        (["bridge", "app:broker", "-Q"], "'-Q' requires an argument"),
        (["completion", "tcsh"], "'tcsh'"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    written = capsys.readouterr()
    assert message in written.err
    assert (written.out, written.err.count("\n")) == ("", 1)


def test_a_redis_that_is_down_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "app_of_no_redis.py").write_text(
        "from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware\n"
        "broker = SidekiqBroker(url='redis://:secret@127.0.0.1:1/0')\n"
        "broker.add_middleware(WorkflowMiddleware())\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert main(["release", "app_of_no_redis:broker", "j1"]) == 2
    error = capsys.readouterr().err
    assert "127.0.0.1:1" in error
    assert "secret" not in error
    assert error.count("\n") == 1


def test_an_error_of_the_command_itself_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(root.commands, "broken", click.Command("broken", callback=fail))
    with pytest.raises(ZeroDivisionError):
        main(["broken"])


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(root.commands, "long", click.Command("long", callback=interrupt))
    assert main(["long"]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_a_reader_that_went_away_is_quiet() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run((SCRIPT, "completion", "zsh"), stdout=writing, stderr=subprocess.PIPE, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "queues"),
    [
        ([], ()),
        (["-Q", "a"], ("a",)),
        (["-Q", "a", "b"], ("a", "b")),
        (["--queues", "a", "b", "-Q", "c"], ("a", "b", "c")),
        (["-Qa"], ("a",)),
        (["--queues=a"], ("a",)),
    ],
)
def test_queues_follow_the_option_as_for_dramatiq(arguments: list[str], queues: tuple[str, ...]) -> None:
    assert bridge.make_context("bridge", ["app:broker", *arguments]).params["queues"] == queues


def test_the_broker_may_follow_the_queues() -> None:
    given = bridge.make_context("bridge", ["-Q", "a", "b", "--", "app:broker"]).params
    assert given == {"broker": "app:broker", "queues": ("a", "b")}


def test_the_page_has_each_command_and_option() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "command-line.md").read_text("utf-8")
    for names in commands(root):
        command: click.Command = root
        for name in names:
            assert isinstance(command, click.Group)
            command = command.commands[name]
        assert not names or f"`{names[0]} " in page
        assert not names[1:] or f"{names[1]} ID" in page or f"`{' '.join(names)}`" in page
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in ("version", "output", "members"):
                assert any(f"`{name}" in page for name in option.opts), option.opts


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    done = run(SCRIPT, "completion", shell)
    assert done.returncode == 0
    assert f"_SIDEKIQ_FLOW_COMPLETE={shell}_complete" in done.stdout


def test_bash_completes_commands() -> None:
    script = (
        f'PATH="{Path(SCRIPT).parent}:$PATH"; eval "$(sidekiq-flow completion bash)"\n'
        "COMP_WORDS=(sidekiq-flow re); COMP_CWORD=1\n"
        "_sidekiq_flow_completion sidekiq-flow\n"
        'echo "${COMPREPLY[@]}"'
    )
    assert run("bash", "-c", script).stdout.split() == ["registry", "release"]
