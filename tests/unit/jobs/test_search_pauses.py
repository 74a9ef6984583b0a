"""A search whose workers are taken away for hours, or are fewer than were asked for, keeps its time and its trials."""

import time

import optuna
import pytest
from optuna.trial import TrialState

from optimizer_jobs.commands.search.budget import Budget
from optimizer_jobs.commands.search.estimate import Estimate
from optimizer_jobs.commands.search.leases import Leases, Worker
from optimizer_jobs.study.storage import journal_path
from optimizer_jobs.study.trials import open_study
from retune.api.model import Task
from retune.api.objectives import default_objectives
from retune.api.search import Search
from tests.unit.jobs import search_worker

HOUR, PAUSE = 3600.0, 5 * 3600.0
LIMITED = Search(max_duration="1h")


class Clock:
    """The clock of the machine, which a test puts forward; what trials note is by the true one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._true, self._ahead = time.time, 0.0
        monkeypatch.setattr(time, "time", lambda: self._true() + self._ahead)

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self._ahead += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time under control of the test."""
    return Clock(monkeypatch)


@pytest.fixture
def study(store: str) -> optuna.Study:
    """An empty study on disk."""
    return open_study(store, "r1", create=default_objectives(Task.CLASSIFICATION))


def run_trial(study: optuna.Study) -> None:
    """Let a trial begin and end, as one does that a stopped worker hands back."""
    study.tell(study.ask(), state=TrialState.FAIL)


def left(budget: Budget) -> int:
    """Seconds that are left, with what the test itself takes forgiven."""
    return 60 * round(budget.left() / 60)


def test_time_without_a_worker_does_not_count(study: optuna.Study, clock: Clock, store: str) -> None:
    """A queue has taken the pods back for five hours. Workers that begin together count them once, and so for all."""
    before = Budget(study, LIMITED, owner="0/a")
    run_trial(study)
    clock.pass_(PAUSE)
    after = [Budget(open_study(store, "r1"), LIMITED, owner=f"{index}/b") for index in range(3)]
    assert [left(budget) for budget in (before, *after)] == [HOUR] * 4
    clock.pass_(HOUR / 2)
    assert left(after[2]) == HOUR / 2
    clock.pass_(HOUR / 2 + 60)
    assert str(after[0].spent()).startswith("the budget of 1 h (search.maxDuration) ended")


def test_two_pauses_are_both_left_out(study: optuna.Study, clock: Clock, store: str) -> None:
    """Each has its own beginning: the last sign of a trial before it."""
    Budget(study, LIMITED, owner="0/a")
    run_trial(study)
    clock.pass_(PAUSE)
    Budget(open_study(store, "r1"), LIMITED, owner="0/b")
    run_trial(study)
    clock.pass_(2 * PAUSE)
    # The second trial's own time is by the true clock, so that its pause is seen from there.
    last = Budget(open_study(store, "r1"), LIMITED, owner="0/c", began=time.time() - PAUSE)
    assert left(last) == HOUR


def test_time_in_which_another_worker_runs_a_trial_counts(study: optuna.Study, clock: Clock, store: str) -> None:
    """A worker that begins late, or again, ends no pause."""
    Budget(study, LIMITED, owner="0/a")
    run_trial(study)
    study.ask()
    clock.pass_(HOUR / 2)
    assert left(Budget(open_study(store, "r1"), LIMITED, owner="1/b")) == HOUR / 2


def test_after_a_pause_an_estimated_limit_is_enough_for_one_worker(
    study: optuna.Study, clock: Clock, store: str
) -> None:
    """Four had been admitted; nobody knows how many come back. What the spec sets stays as it is."""
    first = Budget(study, Search(), owner="0/a", estimated=600.0, workers=4)
    run_trial(study)
    first.first_ended()
    assert left(first) == 600
    clock.pass_(PAUSE)
    again = [Budget(open_study(store, "r1"), Search(), owner=f"{n}/b", estimated=600.0, workers=4) for n in range(2)]
    assert [left(budget) for budget in again] == [2400] * 2


def test_fewer_workers_than_asked_for_have_the_time_that_they_need() -> None:
    """A queue admits one of four: the limit is that of one. More than asked for there never are."""
    asked = Estimate(24, trial_seconds=30, untrained_seconds=30, workers=4)
    assert asked.limit == 270
    assert asked.after(30, workers=1).limit == 4 * 270
    assert asked.after(60, workers=2).limit == 4 * 270
    assert asked.after(30, workers=5).limit == asked.after(30).limit == 270


def test_workers_are_counted_by_the_trials_that_they_took(study: optuna.Study, store: str) -> None:
    """One that was restarted is the same; one that has not begun is none."""
    space = search_worker.space()
    lives = [Leases(study, Worker(index), journal=journal_path(store, "r1"), budget=9) for index in (0, 1, 1)]
    assert lives[0].workers() == 0
    for leases in lives:
        assert leases.take(space.draw, space.fresh) is not None
    assert lives[0].workers() == 2
