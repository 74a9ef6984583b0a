"""Many workers of one search, on a clock that jumps: every trial is run once, nobody starves, requests are few."""

import pytest

from tests.storage.crowd import Latency, Played, play, require_each_once
from tests.storage.memory import MemoryStore

pytestmark = pytest.mark.timeout(300)

WORKERS, TRIALS = 16, 96
NEAR = Latency(read=0.020, write=0.040)
"""A bucket in the same region."""
MOST_SECONDS = 2.5
"""Of a decision; to let each of the others write first, one after the other, takes about one."""


def test_who_was_beaten_is_not_beaten_for_ever() -> None:
    """Where more is decided than the store can take, nobody waits for long, and all get their share."""
    store = MemoryStore()
    tally = play(Played(WORKERS, TRIALS, trial_seconds=0.5), store, NEAR)
    require_each_once(store, TRIALS)
    assert tally.refused > TRIALS
    assert min(tally.trials[index] for index in range(WORKERS)) > TRIALS / WORKERS / 2
    assert max(tally.decisions) < MOST_SECONDS


def test_long_trials_cost_few_requests() -> None:
    """A trial costs a write and its signs of life; each worker reads what each other one writes, once."""
    store = MemoryStore()
    tally = play(Played(WORKERS, TRIALS, trial_seconds=10.0, apart=5.0), store, NEAR)
    require_each_once(store, TRIALS)
    assert tally.refused < TRIALS
    assert tally.a_trial("PUT") - tally.refused / TRIALS < 2.5
    assert tally.a_trial("GET") < 3 * WORKERS
    assert tally.a_trial("LIST") < 1.5
