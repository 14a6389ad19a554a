"""Checks the gem ``sidekiq-flow`` in the Ruby container: ``make companion-check``.

The linter (rubocop), the gem's own tests (minitest, on a Redis of their own), and ``gem build``: the gem that was built
is installed into an empty folder and loaded from there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from dramatiq_sidekiq_flow.embedded import EmbeddedServer
from interop import companion

RUN = companion.RUBY.parent.parent / "interop" / "container" / "run.sh"

#: In the container; /interop/ruby/lib has the stand-in for the gem sidekiq-workflow.
STEPS = {
    "rubocop": "rubocop --cache false --format simple",
    "minitest": """
        ruby -Ilib -Itest -I/interop/ruby/lib -e 'Dir["test/test_*.rb"].sort.each { |file| require "./#{file}" }'
    """,
    "gem build": """
        set -e
        made=$(mktemp -d)
        trap 'rm -rf "$made"' EXIT
        gem build --output "$made/sidekiq-flow.gem" sidekiq-flow.gemspec
        gem install --local --ignore-dependencies --no-document --install-dir "$made/gems" "$made/sidekiq-flow.gem"
        cd /
        GEM_PATH="$made/gems:$(gem env path)" ruby -I/interop/ruby/lib -e '
            gem "sidekiq-flow"
            require "sidekiq/workflow"
            require "sidekiq_flow"
            require "sidekiq_flow/registry"
            require "sidekiq_flow/web"
            SidekiqFlow::Web::Pages::VIEWS.fetch("run")
            installed = $LOADED_FEATURES.grep(/sidekiq_flow.rb$/).first
            abort "#{installed} is not the installed gem" unless installed.start_with?(ARGV.first)
            puts "sidekiq-flow #{SidekiqFlow::VERSION}: #{SidekiqFlow::Companion::Scripts::SHAS.size} scripts"
        ' "$made/gems"
    """,
}


def main() -> int:
    stale = [path.relative_to(companion.RUBY) for path in companion.out_of_date()]
    if stale:
        print(f"Out of date: {', '.join(map(str, stale))}. Run: make companion", file=sys.stderr)
        return 1
    with EmbeddedServer(binary=shutil.which("redis-server")) as server:
        environment = {
            **os.environ,
            "REDIS_URL": server.url,
            "INTEROP_EXTRA": str(companion.GEM),
            "INTEROP_RECORDINGS": "/interop/recordings",
        }
        for name, step in STEPS.items():
            print(f"-- {name}", flush=True)
            command = [str(RUN), "sh", "-c", f"cd /interop/extra\n{step}"]
            code = subprocess.run(command, env=environment, timeout=1200).returncode
            if code:
                print(f"{name} failed", file=sys.stderr)
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
