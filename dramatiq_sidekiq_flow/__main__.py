"""``python -m dramatiq_sidekiq_flow``: see ``cli``."""

import sys

from .cli.main import main
from .cli.program import MODULE

if __name__ == "__main__":
    sys.exit(main(program=MODULE))
