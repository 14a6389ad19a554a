"""The contenders in Ruby: Sidekiq with the middleware of the gem, in the container of ``interop/``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import ClassVar

from .peers import NotOffered, Peer, Timed
from .pipes import ROOT, Child, Command

RUN = ROOT / "interop" / "container" / "run.sh"
SUITE = ROOT / "interop" / "container" / "suite.sh"
PROGRAMS = ROOT / "benchmarks" / "ruby"
CACHE = "~/.cache/dramatiq-sidekiq-flow"

#: Seconds that building a container may take.
BUILD = 900


class RubyMissing(Exception):
    """There is no Ruby of that Sidekiq, and it cannot be built; the message says why, in one line."""


class Sidekiq(Peer):
    """A producer process; each of its calls is one order."""

    #: Sidekiq's major version.
    major: ClassVar[int]
    queue = "queue:bench"
    found: ClassVar[str] = "unknown"

    def __init__(self, url: str) -> None:
        self.producer = Child(self.command(url, "producer.rb"))

    @classmethod
    def command(cls, url: str, program: str, *arguments: str) -> Command:
        environment = {"REDIS_URL": url, "INTEROP_SIDEKIQ": str(cls.major), "INTEROP_EXTRA": str(PROGRAMS)}
        return Command((str(RUN), "ruby", f"/interop/extra/{program}", *arguments), environment)

    @classmethod
    def worker(cls, url: str, threads: int, awaiting: bool, queue: str = "bench") -> Command:
        if awaiting:
            raise NotOffered("it has no coroutines")
        return cls.command(url, "worker.rb", str(threads), queue)

    @classmethod
    def version(cls) -> str:
        return cls.found

    @classmethod
    def prepare(cls) -> None:
        """Build the container if there is none yet, and find its versions.

        Raises:
          RubyMissing: if it cannot be built or run.
        """
        if reason := _cannot_build(cls.major):
            raise RubyMissing(reason)
        command = [str(RUN), "ruby", "-rsidekiq", "-e", 'puts "#{Sidekiq::VERSION}, Ruby #{RUBY_VERSION}"']
        environment = {**os.environ, "INTEROP_SIDEKIQ": str(cls.major)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=BUILD, check=False)
        if done.returncode:
            raise RubyMissing(f"{RUN.relative_to(ROOT)} failed with exit code {done.returncode}")
        cls.found = done.stdout.strip()

    def send(self, jobs: int, *, first: int = 0, size: int = 0) -> Timed:
        return self._order("send", jobs, size, first)

    def bulk(self, jobs: int, *, messages: bool = False) -> Timed:
        return self._order("bulk", jobs)

    def chain(self, steps: int, *, first: int = 0, size: int = 0) -> Timed:
        return self._order("chain", steps, size, first)

    def group(self, steps: int) -> Timed:
        return self._order("group", steps)

    def fan_out(self, steps: int) -> Timed:
        return self._order("fan_out", steps)

    def join(self, steps: int) -> Timed:
        return self._order("join", steps)

    def _order(self, do: str, jobs: int, size: int = 0, first: int = 0) -> Timed:
        patience = 60 + jobs * 0.01
        answer = self.producer.order({"do": do, "jobs": jobs, "size": size, "first": first}, patience)
        return Timed(answer["began"], answer["ended"])

    def close(self) -> None:
        self.producer.close()


class Sidekiq7(Sidekiq):
    name = "sidekiq-7"
    title = "Sidekiq 7 with the gem"
    major = 7


class Sidekiq8(Sidekiq):
    name = "sidekiq-8"
    title = "Sidekiq 8 with the gem"
    major = 8


RUBY_PEERS: tuple[type[Sidekiq], ...] = (Sidekiq7, Sidekiq8)


def _cannot_build(major: int) -> str | None:
    """Why there cannot be a container, if so."""
    if os.environ.get("INTEROP_ENGINE") != "chroot" and _docker_answers():
        return None
    if os.geteuid() != 0:
        return "no Docker engine answers, and a chroot needs root"
    if _is_built(major) or shutil.which("debootstrap") or shutil.which("apt-get"):
        return None
    return "no Docker engine answers, and debootstrap is missing"


def _docker_answers() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def _is_built(major: int) -> bool:
    suite = re.search(rf"^{major}\) suite=(\w+)", SUITE.read_text(), re.MULTILINE)
    folder = os.path.expanduser(CACHE)
    if suite is None or not os.path.isdir(folder):
        return False
    return any(
        entry.name.startswith(f"{suite[1]}-") and os.path.exists(os.path.join(entry.path, ".interop-complete"))
        for entry in os.scandir(folder)
    )
