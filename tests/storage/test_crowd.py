"""Many workers of one search, on a clock that jumps: every trial is run once, nobody starves, requests are few."""

from uuid import uuid4

import pytest

from optimizer_jobs.stores.opening import open_store
from tests.storage import servers
from tests.storage.crowd import Latency, Played, play, require_each_once
from tests.storage.memory import MemoryStore
from tests.storage.servers import Store as Server

pytest.importorskip("s3fs")

pytestmark = pytest.mark.timeout(300)

WORKERS, TRIALS = 16, 96
FEW = 8
"""Workers where each request is one of a real server."""
NEAR = Latency(read=0.020, write=0.040)
"""A bucket in the same region."""
MOST_SECONDS = 2.5
"""Of a decision; to let each of the others write first, one after the other, takes about one."""


def test_every_trial_is_run_once_on_a_real_server(s3: Server) -> None:
    """With each worker always deciding on what others may have changed."""
    assert s3.port
    store = open_store(f"s3://{servers.BUCKET}/{uuid4().hex}")
    tally = play(Played(FEW, 3 * FEW, trial_seconds=0.5), store, NEAR)
    require_each_once(store, 3 * FEW)
    assert tally.refused > 0


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
