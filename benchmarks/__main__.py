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
    with serve(chosen.url) as url:
        server = Server(url)
        run = Run(server, peers)
        about = run.about()
        say(headline(about))
        results = run.take(taken)
        server.close()
    names = [peer.name for peer in peers]
    document: dict[str, Any] = {**about, "measures": [result.as_json(names) for result in results]}
    found = Document(document)
    if chosen.json:
        print(json.dumps(document, indent=2))
    else:
        print(headline(about))
        print()
        print(tables(results, list(peers)))
    exceeded = _end(chosen, document, found)
    # A peer may fail (that is a finding); we may not.
    failed = any(names[0] in result.failures for result in results)
    return int(failed or exceeded)


def _end(chosen: argparse.Namespace, document: dict[str, Any], found: Document) -> bool:
    """Write what a run leaves behind; returns whether a limit is exceeded."""
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / ("quick.json" if chosen.quick else "out.json")
    path.write_text(json.dumps(document, indent=2) + "\n")
    say(f"written: {path}")
    out = sys.stderr if chosen.json else sys.stdout
    if chosen.quick:
        exceeded = limits.exceeded(found)
        print(limits.table(found), file=out, flush=True)
        return bool(exceeded)
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
