"""Testing: run workflows in this process, and conformance tests for custom backends."""

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
