"""``python -m benchmarks [--json] [--quick] [--only NAME] [--ruby 7,8]``"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from dramatiq_sidekiq_flow.errors import EmbeddedServerError

from . import goals, limits, options, plots
from .document import Document
from .peers import PEERS
from .report import headline, tables
from .ruby_peers import RubyMissing
from .run import Run, all_peers, say
from .server import NotEmpty, Server, serve


def main() -> int:
    chosen = options.parse()
    if chosen.plots is not None:
        return _plot(Document.read(chosen.plots), chosen.output)
    if chosen.goals is not None:
        print(goals.table(Document.read(chosen.goals)))
        return 0
    wanted = PEERS[:1] if chosen.alone else PEERS
    missing = sorted({peer.package for peer in wanted if not peer.installed()})
    if missing:
        say(f"The benchmarks need {', '.join(missing)} too: make bench, or pip install -e '.[bench]'")
        return 2
    try:
        return _measure(chosen)
    except (EmbeddedServerError, NotEmpty, RubyMissing, options.WrongOption) as e:
        say(str(e))
        return 2


def _measure(chosen: argparse.Namespace) -> int:
    taken = options.choose(chosen)
    peers = all_peers(options.ruby_majors(chosen), alone=chosen.alone)
    names = [peer.name for peer in peers]
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / ("quick.json" if chosen.quick else "out.json")
    with serve(chosen.url) as url:
        server = Server(url)
        run = Run(server, peers)
        document: dict[str, Any] = {**run.about(), "measures": []}
        say(headline(document))
        results = []
        for result in run.take(taken):
            results.append(result)
            document["measures"].append(result.as_json(names))
            # A run that is killed leaves what it has.
            path.write_text(json.dumps(document, indent=2) + "\n")
        server.close()
    say(f"written: {path}")
    _print(chosen, document, tables(results, list(peers)))
    exceeded = _end(chosen, Document(document))
    # A peer may fail (that is a finding); we may not.
    failed = any(names[0] in result.failures for result in results)
    return int(failed or exceeded)


def _print(chosen: argparse.Namespace, document: dict[str, Any], shown: str) -> None:
    if chosen.json:
        print(json.dumps(document, indent=2))
    else:
        print(headline(document), shown, sep="\n\n")


def _end(chosen: argparse.Namespace, found: Document) -> bool:
    """Check the limits, or draw the plots and print the goals; returns whether a limit is exceeded."""
    out = sys.stderr if chosen.json else sys.stdout
    if chosen.quick:
        print(limits.table(found), file=out, flush=True)
        return bool(limits.exceeded(found))
    _plot(found, chosen.output)
    print(goals.table(found), file=out, flush=True)
    return False


def _plot(found: Document, folder: Path) -> int:
    try:
        for path in plots.draw(found, folder):
            say(f"written: {path}")
    except plots.MatplotlibMissing as e:
        say(str(e))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
