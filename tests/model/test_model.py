"""The protocol holds in every state; the plain gem's does not, nor does ours with a part left out."""

from __future__ import annotations

import pytest

from . import ours
from .configurations import BROKEN, FAST, GEM, GROUP, MIXED, NESTED, OURS, Configuration
from .explorer import explore
from .ours import BREAKS, Protocol
from .world import Flow


def named(configuration: Configuration) -> str:
    return configuration.name


@pytest.mark.parametrize("configuration", [c for c in OURS + FAST + MIXED if not c.deep], ids=named)
def test_nothing_is_lost_doubled_or_early(configuration: Configuration) -> None:
    found = explore(configuration.model())
    assert found.problem == "", "\n".join(found.trace)
    assert found.states > 1000
    assert found.endings["done"] > 0


@pytest.mark.parametrize("configuration", GEM, ids=named)
def test_the_gems_faults_are_found(configuration: Configuration) -> None:
    found = explore(configuration.model())
    assert found.property == configuration.finds, found
    print("\n".join(found.trace))


@pytest.mark.parametrize("configuration", BROKEN, ids=named)
def test_what_is_left_out_is_missed(configuration: Configuration) -> None:
    """The model can fail: each part of the protocol is needed in it."""
    found = explore(configuration.model())
    assert found.property == configuration.finds, found


def test_each_part_is_left_out_once() -> None:
    assert sorted(c.name for c in BROKEN) == sorted(BREAKS)


@pytest.mark.parametrize("flow", [GROUP, NESTED], ids=["group", "nested"])
def test_an_expired_barrier_puts_its_step_into_dead(flow: Flow) -> None:
    """With no other fault, a run whose barrier expired ends with a step in ``dead``, and can be seen."""
    found = explore(Protocol(flow, faults=1, kinds=frozenset({"expire"})))
    assert found.problem == ""
    assert found.endings["dead"] > 0


def test_without_faults_every_order_ends_done() -> None:
    found = explore(Protocol(NESTED, faults=0))
    assert (found.problem, set(found.endings)) == ("", {"done"})


@pytest.mark.parametrize("kind", sorted(ours.EVERY))
def test_each_kind_of_fault_happens(kind: str) -> None:
    """A kind that no transition makes would be a hole in the model."""
    some = explore(Protocol(GROUP, faults=2, kinds=frozenset({"raise", "expire"}) - {kind}))
    more = explore(Protocol(GROUP, faults=2, kinds=frozenset({"raise", "expire", kind})))
    assert more.transitions > some.transitions
