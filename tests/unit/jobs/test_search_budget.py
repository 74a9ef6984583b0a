"""Wall time and CPU time end a search in good order, whoever runs it and however often it is started."""

import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optimizer_jobs.commands.search import budget as module
from optimizer_jobs.commands.search.budget import ENDED, Budget, BudgetSpentError, cpu_seconds
from optimizer_jobs.commands.search.early_stopping import Watch
from optimizer_jobs.commands.search.leases import Leases, Worker
from optimizer_jobs.study.trials import TrialResult, journal_path, open_study, trials_table
from retune.api.model import Task
from retune.api.objectives import default_objectives
from retune.api.search import Search
from tests.unit.jobs import search_worker

HOUR = Search(max_duration="1h", max_cpu_hours="1")


@pytest.fixture
def study(store: str) -> optuna.Study:
    """An empty study on disk."""
    return open_study(store, "r1", create=default_objectives(Task.CLASSIFICATION))


class Clock:
    """Wall time and CPU time that pass when told so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.cpu, self.ticks = 1000.0, 0.0, 0.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: self.ticks)
        monkeypatch.setattr(module, "cpu_seconds", lambda: self.cpu)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time under control of the test."""
    return Clock(monkeypatch)


def test_without_budgets_nothing_is_ever_spent(study: optuna.Study, clock: Clock) -> None:
    """Trials alone end the search."""
    unlimited = Budget(study, Search(), owner="0/a")
    clock.wall, clock.cpu = 1e9, 1e9
    assert unlimited.spent() is None


def test_wall_time_counts_from_the_study_and_not_from_the_worker(study: optuna.Study, clock: Clock, store: str) -> None:
    """A worker that starts 50 minutes later, or again, has 10 minutes left of the hour."""
    Budget(study, HOUR, owner="0/a")
    clock.wall += 3000
    later = Budget(open_study(store, "r1"), HOUR, owner="0/b")
    assert later.spent() is None
    clock.wall += 601
    assert later.spent() == "search.maxDuration of 1h is spent"


def test_one_training_may_take_a_quarter_of_the_time_left(study: optuna.Study, clock: Clock) -> None:
    """Its share is counted from its own begin, so that trials after it have time; without a limit it has all of it."""

    def asked(search: Search) -> list[bool]:
        watch = Watch(study.ask(), study, rule="None", budget=Budget(study, search, owner="0/a"), enough=bool)
        watch.entering("training")
        answers = []
        for epoch in range(1, 4):
            clock.ticks += 300
            answers.append(watch.report(epoch, 0.9))
        return answers

    Budget(study, HOUR, owner="0/a")
    clock.wall += 1200  # 40 minutes are left
    assert asked(HOUR) == [True, False, False]
    assert asked(Search()) == [True, True, True]


def test_cpu_time_is_that_of_all_workers_and_all_their_lives(study: optuna.Study, clock: Clock, store: str) -> None:
    """Two lives of one worker and one of another, 30 minutes each, spend more than an hour together."""
    for owner in ("0/a", "0/b", "1/c"):
        worker = Budget(open_study(store, "r1"), HOUR, owner=owner)
        assert worker.spent() is None
        clock.cpu = 1300.0
        worker.account()
        clock.cpu = 0.0
    newest = Budget(study, HOUR, owner="1/d")
    assert newest.spent() == "search.maxCpuHours of 1 is spent"


def test_what_is_spent_stays_spent_for_everybody(study: optuna.Study, clock: Clock, store: str) -> None:
    """The first worker that sees it says so in the study; a clock that is behind changes nothing."""
    first, second = Budget(study, HOUR, owner="0/a"), Budget(open_study(store, "r1"), HOUR, owner="1/b")
    clock.wall += 3601
    assert first.spent()
    clock.wall -= 3601
    assert second.spent() == "search.maxDuration of 1h is spent"
    assert open_study(store, "r1").user_attrs[ENDED] == "search.maxDuration of 1h is spent"


def test_a_trial_under_way_is_told_and_the_study_is_not_read_at_every_epoch(study: optuna.Study, clock: Clock) -> None:
    """It is asked thousands of times; it looks twice a second."""
    budget = Budget(study, HOUR, owner="0/a")
    clock.ticks = 1.0
    budget.check()
    clock.wall += 3601
    budget.check()
    clock.ticks += 0.5
    with pytest.raises(BudgetSpentError, match=r"given up: search.maxDuration of 1h is spent"):
        budget.check()


def test_cpu_time_is_that_of_all_threads() -> None:
    """Work of a thread counts."""
    before = cpu_seconds()
    thread = threading.Thread(target=lambda: sum(number * number for number in range(2_000_000)))
    thread.start()
    thread.join()
    assert cpu_seconds() > before


def test_nobody_starts_a_trial_when_a_budget_is_spent(study: optuna.Study, store: str) -> None:
    """The trial under way may be told; the search is finished when it is, and not before."""
    spent: list[str] = []
    path: Path = journal_path(store, "r1")
    space = search_worker.space()
    leases = Leases(study, Worker(0), journal=path, budget=5, closed=lambda: spent[0] if spent else None)
    trial = leases.take(space.draw, space.fresh)
    assert trial is not None
    spent.append("search.maxDuration of 1h is spent")
    assert leases.take(space.draw, space.fresh) is None
    assert not leases.finished()
    leases.tell(trial, TrialResult(plan="", reason="given up", stopped=True), state=TrialState.PRUNED)
    assert leases.finished()
    assert [row.outcome for row in trials_table(open_study(store, "r1"))] == ["discarded"]


def test_a_search_over_its_time_does_not_wait_for_the_dead(study: optuna.Study, store: str) -> None:
    """The trial of a worker that died is given up like any other."""
    spent: list[str] = []
    path, space = journal_path(store, "r1"), search_worker.space()

    def leases(life: str) -> Leases:
        return Leases(study, Worker(0, life), journal=path, budget=5, closed=lambda: spent[0] if spent else None)

    assert leases("first").take(space.draw, space.fresh) is not None
    spent.append("search.maxCpuHours of 1 is spent")
    restarted = leases("second")
    assert not restarted.finished()
    assert restarted.take(space.draw, space.fresh) is None
    assert restarted.finished()
