"""``python -m benchmarks [--json] [--quick] [--only NAME]``"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import attrs

from dramatiq_sidekiq_flow.errors import EmbeddedServerError

from .measures import Measure, Scene, measures
from .peers import PEERS, Peer
from .report import tables
from .results import Result
from .server import NotEmpty, Server, serve


def main() -> int:
    options = _options()
    missing = sorted({peer.package for peer in PEERS if not peer.installed()})
    if missing:
        _say(f"The benchmarks need {', '.join(missing)} too: make bench, or pip install -e '.[bench]'")
        return 2
    try:
        chosen = _choose(options)
        with serve(options.url) as url:
            server = Server(url)
            about = _about(server)
            _say(f"{about['server']['name']} {about['server']['version']}, {about['cpus']} CPUs")
            results = _run(server, chosen)
            server.close()
    except (EmbeddedServerError, NotEmpty, ValueError) as e:
        _say(str(e))
        return 2
    names = [peer.name for peer in PEERS]
    if options.json:
        print(json.dumps({**about, "measures": [result.as_json(names) for result in results]}, indent=2))
    else:
        print(_headline(about))
        print()
        print(tables(results, list(PEERS)))
    # A peer may fail (that is a finding); we may not.
    return int(any(names[0] in result.failures for result in results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures this package and its peers.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--quick", action="store_true", help="small sizes and two rounds: does it run? (a minute)")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="only this measure (chain-100), or all of a kind (chain)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="this many rounds of each measure")
    parser.add_argument("--url", help="an EMPTY Redis to measure on (it is emptied again and again); ours by default")
    return parser.parse_args()


def _choose(options: argparse.Namespace) -> list[Measure]:
    known = measures(options.quick)
    if options.only:
        names = {name for m in known for name in _names(m)}
        if unknown := set(options.only) - names:
            raise ValueError(f"There is no measure {', '.join(sorted(unknown))}, but: {', '.join(sorted(names))}")
        chosen = [m for m in known if _names(m) & set(options.only)]
    else:
        chosen = [m for m in known if m.quick or not options.quick]
    if options.rounds is not None:
        if options.rounds < 1:
            raise ValueError("--rounds must be 1 or more")
        chosen = [attrs.evolve(m, rounds=options.rounds) for m in chosen]
    return chosen


def _names(measure: Measure) -> set[str]:
    """Its own name, and that of its kind: ``chain-100``, ``chain``."""
    return {measure.name, measure.name.partition("-")[0]}


def _run(server: Server, chosen: list[Measure]) -> list[Result]:
    results = []
    try:
        for measure in chosen:
            results.append(result := Result(measure))
            # Interleaved, A B C A B C: a slow spell of the machine meets all.
            for number in range(1, measure.rounds + 1):
                for peer in PEERS:
                    if peer.name not in result.failures:
                        _sample(server, result, peer, number)
    except KeyboardInterrupt:
        _say("interrupted; this is what there is")
    return results


def _sample(server: Server, result: Result, kind: type[Peer], number: int) -> None:
    measure = result.measure
    line = f"{measure.name:<12} round {number}/{measure.rounds}  {kind.title:<24}"
    server.reset()
    peer = kind(server.url)
    try:
        figures = measure.take(Scene(server, peer, number))
    except Exception as e:
        # One that cannot do something has said something about itself: go on.
        result.failures[kind.name] = f"{type(e).__name__}: {e}"
        _say(f"{line} failed: {result.failures[kind.name]}")
        return
    finally:
        peer.close()
    result.samples[kind.name].append(figures)
    _say(line + ", ".join(f"{figures[name]:,.2f} {figure.unit}" for name, figure in measure.figures.items()))


def _about(server: Server) -> dict[str, Any]:
    versions = {}
    for package in sorted({peer.package for peer in PEERS} | {"redis"}):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            # Run from a checkout that is not installed.
            from dramatiq_sidekiq_flow import __version__

            versions[package] = __version__
    return {
        "server": server.describe(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "peers": {peer.name: peer.title for peer in PEERS},
    }


def _headline(about: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    server = about["server"]
    return f"Python {about['python']}, {about['cpus']} CPUs, {server['name']} {server['version']}; {packages}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
