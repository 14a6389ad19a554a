"""For tests: workflows run to their end in this process, and suites for implementations of one's own."""

from .conformance import BarrierConformance, CallbackStorageConformance, MemoryConformance
from .flow import FlowTest
from .run import Enqueued, Run, Step

__all__ = [
    "BarrierConformance",
    "CallbackStorageConformance",
    "Enqueued",
    "FlowTest",
    "MemoryConformance",
    "Run",
    "Step",
]
