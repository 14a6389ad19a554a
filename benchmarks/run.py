"""One run: each measure, round by round, with all contenders in turn."""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import attrs

from .measures import Measure, Scene
from .peers import PEERS, NotOffered, Peer
from .proxy import delayed
from .results import Result
from .ruby_peers import RUBY_PEERS, RubyMissing, Sidekiq
from .server import Server


def say(line: str) -> None:
    """Report progress."""
    print(line, file=sys.stderr, flush=True)


@attrs.frozen
class Run:
    """The contenders of a run before a server; ours is the first."""

    server: Server
    peers: tuple[type[Peer], ...]

    def take(self, chosen: list[Measure]) -> Iterator[Result]:
        """Take all samples, measure by measure; an interrupt or SIGTERM ends the run early."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        for measure in self._possible(chosen):
            result = Result(measure)
            try:
                self._measure(result)
            except KeyboardInterrupt:
                say(f"interrupted in {measure.name}; this is what there is")
                return
            if self.peers[0].name in result.left_out:
                say(f"{measure.name:<15} left out: {result.left_out[self.peers[0].name]}")
            else:
                yield result

    def _possible(self, chosen: list[Measure]) -> list[Measure]:
        """The measures whose contenders are there."""
        names = {peer.name for peer in self.peers}
        return [measure for measure in chosen if measure.needs is None or measure.needs in names]

    def _measure(self, result: Result) -> None:
        measure = result.measure
        ours = self.peers[0].name
        # Interleaved, A B C A B C: a slow spell of the machine meets all.
        for number in range(1, measure.rounds + 1):
            for peer in self.peers:
                out = peer.name in result.failures or peer.name in result.left_out
                if peer.name in measure.peers and not out:
                    self._sample(result, peer, number)
                if ours in result.left_out:
                    return

    def _sample(self, result: Result, kind: type[Peer], number: int) -> None:
        measure = result.measure
        line = f"{measure.name:<15} round {number}/{measure.rounds}  {kind.title:<24}"
        self.server.reset()
        try:
            with ExitStack() as stack:
                url = stack.enter_context(delayed(self.server.url)) if measure.delayed else self.server.url
                peer = kind(self.server.url)
                stack.callback(peer.close)
                figures = measure.take(Scene(self.server, peer, number, url))
        except NotOffered as e:
            result.left_out[kind.name] = str(e)
            return
        except Exception as e:
            # One that cannot do something has said something about itself: go on.
            result.failures[kind.name] = f"{type(e).__name__}: {e}"
            say(f"{line} failed: {result.failures[kind.name]}")
            return
        result.samples[kind.name].append(figures)
        say(line + ", ".join(f"{figures[name]:,.2f} {figure.unit}" for name, figure in measure.figures.items()))

    def about(self) -> dict[str, Any]:
        """The machine and the versions."""
        return {
            "server": self.server.describe(),
            "cpus": os.cpu_count(),
            "cpu": _cpu(),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "versions": {peer.title: peer.version() for peer in self.peers} | _clients(),
            "peers": {peer.name: peer.title for peer in self.peers},
        }


def ruby_peers(majors: set[int] | None) -> list[type[Sidekiq]]:
    """The contenders in Ruby.

    Parameters:
      majors: Those that must be there, or None for those that can be had; the
        others are named in one line each.

    Raises:
      RubyMissing: if one that must be there is not.
    """
    found = []
    for peer in RUBY_PEERS:
        if majors is not None and peer.major not in majors:
            continue
        try:
            peer.prepare()
        except RubyMissing as e:
            if majors is not None:
                raise
            say(f"left out: {peer.title} ({e})")
        else:
            found.append(peer)
    return found


def all_peers(majors: set[int] | None, *, alone: bool = False) -> tuple[type[Peer], ...]:
    """Ours, and, unless it is alone, the others that are there.

    Raises:
      RubyMissing: see :func:`ruby_peers`.
    """
    return PEERS[:1] if alone else (*PEERS, *ruby_peers(majors))


def _clients() -> dict[str, str]:
    """Versions of the Redis client, and of the parser that it uses if it is installed."""
    try:
        parser = version("hiredis")
    except PackageNotFoundError:
        parser = "not installed"
    return {"redis-py": version("redis"), "hiredis": parser}


def _cpu() -> str:
    """The name of the processor, where the system says it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"
