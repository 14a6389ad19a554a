"""``python -m dramatiq_sidekiq_flow``: see ``cli``."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
