"""Histories of canaries by a route, from fixed seeds."""

import pytest

from tests.unit.plan.simulation_routed import RoutedHistory

HISTORIES, SHARED = 60, 5
FIRSTS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(30, HISTORIES, 30))]


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRSTS)
def test_histories_end_with_the_route_as_its_owners_left_it(first: int) -> None:
    """Faults 1, 3, 5, 29, 30 and 31, mixed: no share without a note of it, no pods gone before it, nothing left."""
    histories = [RoutedHistory(seed) for seed in range(first, first + 30)]
    for history in histories:
        history.play()
    assert sum(bool(history.world.routed) for history in histories) >= SHARED
