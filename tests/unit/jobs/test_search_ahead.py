"""A worker whose study lies in a store of objects ends a trial and takes the next one in the same write."""

from pathlib import Path

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import Trial, TrialState

from optimizer_jobs.commands.search.leases import Leases, Worker
from optimizer_jobs.commands.search.sharing import share
from optimizer_jobs.commands.search.space import Plan
from optimizer_jobs.stores.folder import FolderStore
from optimizer_jobs.study.storage import study_prefix
from optimizer_jobs.study.trials import counted, number_of
from retune.api.model import Task
from retune.api.objectives import default_objectives
from tests.unit.jobs.search_worker import found, space

BUDGET = 4


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """An empty store."""
    return FolderStore(tmp_path / "store")


def opened(store: FolderStore, index: int = 0) -> tuple[Leases, optuna.Study]:
    """Return a worker's leases on the study, and the study."""
    study, shared = share(store, "r1", default_objectives(Task.CLASSIFICATION), lease_seconds=60.0)
    study.sampler = RandomSampler(seed=index)
    return Leases(study, Worker(index), shared=shared, budget=BUDGET), study


def taken(leases: Leases) -> Trial:
    """Take a trial, which must be there."""
    trial = leases.take(space().draw, space().fresh)
    assert trial is not None
    return trial


def tell(leases: Leases, trial: Trial) -> bool:
    """End a trial, and take the next one where that is one write."""
    result = found(space().draw(trial))
    return leases.tell(trial, result, state=TrialState.COMPLETE, then=(space().draw, space().fresh))


def objects(store: FolderStore) -> int:
    """Return how many objects the journal has."""
    return len(list(store.stats(f"{study_prefix('r1')}/log/")))


def states(study: optuna.Study) -> list[TrialState]:
    """Return how the trials of the budget stand."""
    return [trial.state for trial in counted(study)]


def test_the_end_of_a_trial_and_the_next_one_are_one_object(store: FolderStore) -> None:
    """Until the budget is spent; every trial has its own number."""
    leases, study = opened(store)
    trial = taken(leases)
    for left in range(BUDGET - 1, 0, -1):
        before = objects(store)
        assert tell(leases, trial)
        trial = taken(leases)
        assert objects(store) == before + 1
        assert states(study).count(TrialState.WAITING) == left - 1
    assert tell(leases, trial)
    assert leases.take(space().draw, space().fresh) is None
    assert leases.finished()
    assert sorted(map(number_of, counted(opened(store)[1]))) == list(range(1, BUDGET + 1))


def test_what_was_taken_ahead_is_handed_back_when_a_worker_stops(store: FolderStore) -> None:
    """Any other worker may take it at once, and it has not died."""
    leases, _ = opened(store)
    assert tell(leases, taken(leases))
    leases.release("its worker stopped")
    leases.release("nothing is left to hand back")
    other, study = opened(store, index=1)
    assert sorted(states(study)) == [TrialState.COMPLETE] + [TrialState.WAITING] * (BUDGET - 1)
    assert number_of(counted(study)[0]) == 1
    assert other.number(taken(other)) == 2


def test_a_next_trial_that_cannot_be_drawn_does_not_cost_the_result(store: FolderStore) -> None:
    """The result is recorded, and whoever takes the next trial meets the error."""
    leases, _ = opened(store)
    trial = taken(leases)

    def broken(_: Trial) -> Plan:
        raise LookupError("no such parameter")

    result = found(space().draw(trial))
    assert leases.tell(trial, result, state=TrialState.COMPLETE, then=(broken, space().fresh))
    assert sorted(states(opened(store)[1])) == [TrialState.COMPLETE] + [TrialState.WAITING] * (BUDGET - 1)
    with pytest.raises(LookupError):
        leases.take(broken, space().fresh)
