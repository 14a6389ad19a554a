"""The mutants, by what they break."""

from __future__ import annotations

from collections import Counter

from ..mutant import Mutant
from .advance import ADVANCE
from .callbacks import RUN_CALLBACKS
from .cancel import CANCELLED
from .chain_step import CHAIN_STEP
from .chains import CHAINS
from .deaths import DEATH
from .dynamic import DYNAMIC
from .ends import ENDS
from .explain import EXPLAINED
from .flight import FLIGHT
from .foreign import FOREIGN
from .hooks import HOOKS
from .need import NEEDING
from .parts import PARTS
from .pause import PAUSED
from .producers import PRODUCERS
from .queues import QUEUES
from .reading import READING
from .records import RECORD
from .restarts import RESTARTED
from .runs import RUNS
from .web import WEB
from .workers import WORKERS

ALL: list[Mutant] = [
    *ADVANCE,
    *CANCELLED,
    *CHAIN_STEP,
    *CHAINS,
    *DYNAMIC,
    *DEATH,
    *ENDS,
    *EXPLAINED,
    *FLIGHT,
    *FOREIGN,
    *HOOKS,
    *NEEDING,
    *PARTS,
    *PAUSED,
    *QUEUES,
    *READING,
    *RECORD,
    *RESTARTED,
    *RUNS,
    *RUN_CALLBACKS,
    *WEB,
    *WORKERS,
    *PRODUCERS,
]

_twice = [name for name, count in Counter(mutant.name for mutant in ALL).items() if count > 1]
if _twice:
    raise ValueError(f"Two mutants have the same name: {', '.join(_twice)}")
