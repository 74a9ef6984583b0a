"""Wall time and CPU time end a search in good order, whoever runs it and however often it is started."""

import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optimizer_jobs.commands.search import budget as module
from optimizer_jobs.commands.search.budget import Budget, BudgetSpentError, cpu_seconds
from optimizer_jobs.commands.search.early_stopping import Watch
from optimizer_jobs.commands.search.estimate import LEAST_SECONDS, Estimate
from optimizer_jobs.commands.search.leases import UNCHANGED_A_TRIAL, Leases, Worker
from optimizer_jobs.commands.search.termination import given_up_when, termination_held_back
from optimizer_jobs.study.storage import journal_path
from optimizer_jobs.study.trials import ENDED, KEY, TrialResult, open_study, trials_table
from retune.api.model import Task
from retune.api.objectives import default_objectives
from retune.api.search import Search
from tests.unit.jobs import search_worker

HOUR = Search(max_duration="1h", max_cpu_hours="1")
SPENT = "the budget of 1 h (search.maxDuration) ended after 0 of 24 trials"


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
    assert later.spent() == SPENT


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
    assert newest.spent() == "the budget of 1 CPU hours (search.maxCpuHours) ended after 0 of 24 trials"


def test_what_is_spent_stays_spent_for_everybody(study: optuna.Study, clock: Clock, store: str) -> None:
    """The first worker that sees it says so in the study; a clock that is behind changes nothing."""
    first, second = Budget(study, HOUR, owner="0/a"), Budget(open_study(store, "r1"), HOUR, owner="1/b")
    clock.wall += 3601
    assert first.spent()
    clock.wall -= 3601
    assert second.spent() == SPENT
    assert open_study(store, "r1").user_attrs[ENDED] == SPENT


def test_a_trial_under_way_is_told_and_the_study_is_not_read_at_every_epoch(study: optuna.Study, clock: Clock) -> None:
    """It is asked thousands of times; it looks twice a second."""
    budget = Budget(study, HOUR, owner="0/a")
    clock.ticks = 1.0
    budget.check()
    clock.wall += 3601
    budget.check()
    clock.ticks += 0.5
    with pytest.raises(BudgetSpentError, match=re.escape(f"given up: {SPENT}")):
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
    spent.append(SPENT)
    assert leases.take(space.draw, space.fresh) is None
    assert not leases.finished()
    leases.tell(trial, TrialResult(plan="", reason="given up", stopped=True), state=TrialState.PRUNED)
    assert leases.finished()
    assert [row.outcome for row in trials_table(open_study(store, "r1"))] == ["discarded"]


def test_a_trial_that_ran_nothing_new_spends_no_budget(study: optuna.Study, store: str) -> None:
    """Another takes its place, its combination is not drawn again, and it is in no table; this ends some time."""
    space, budget = search_worker.space(), 3
    leases = Leases(study, Worker(0), journal=journal_path(store, "r1"), budget=budget)
    keys = []
    while not leases.finished():
        trial = leases.take(space.draw, space.fresh)
        assert trial is not None
        keys.append(trial.user_attrs[KEY])
        leases.tell(
            trial, TrialResult(plan="", reason="it runs the same as trial 1"), state=TrialState.PRUNED, counts=False
        )
    assert len(set(keys)) == len(keys) == (1 + UNCHANGED_A_TRIAL) * budget
    assert [row.number for row in trials_table(open_study(store, "r1"))] == [1, 2, 3]


def test_a_search_over_its_time_does_not_wait_for_the_dead(study: optuna.Study, store: str) -> None:
    """The trial of a worker that died is given up like any other."""
    spent: list[str] = []
    path, space = journal_path(store, "r1"), search_worker.space()

    def leases(life: str) -> Leases:
        return Leases(study, Worker(0, life), journal=path, budget=5, closed=lambda: spent[0] if spent else None)

    assert leases("first").take(space.draw, space.fresh) is not None
    spent.append(SPENT)
    restarted = leases("second")
    assert not restarted.finished()
    assert restarted.take(space.draw, space.fresh) is None
    assert restarted.finished()


def test_where_the_spec_sets_no_budget_the_first_workers_estimate_is_the_limit(
    study: optuna.Study, clock: Clock
) -> None:
    """A later worker's own estimate changes nothing, and the sentence names the field that would."""
    Budget(study, Search(), owner="0/a", estimated=180).first_ended()
    later = Budget(study, Search(), owner="1/b", estimated=9999)
    clock.wall += 179
    assert later.spent() is None
    clock.wall += 2
    assert later.spent() == "the budget of 3 min (set search.maxDuration for another) ended after 0 of 24 trials"


def test_a_budget_in_cpu_time_alone_sets_no_limit_of_wall_time(study: optuna.Study, clock: Clock) -> None:
    """Who limits CPU hours has said what a search may cost."""
    budget = Budget(study, Search(max_cpu_hours="1"), owner="0/a", estimated=180)
    clock.wall += 1e6
    assert budget.spent() is None


def test_what_comes_before_the_first_trial_counts(study: optuna.Study, clock: Clock) -> None:
    """Reading and measuring the champion is part of the search's hour."""
    budget = Budget(study, HOUR, owner="0/a", began=clock.wall - 3000)
    assert budget.left() == 600


def test_workers_hear_of_cpu_time_soon_enough_to_keep_the_budget(study: optuna.Study, clock: Clock) -> None:
    """A worker that looks tells the others what it used since, once it is a hundredth of the budget."""
    mine, others = Budget(study, HOUR, owner="0/a"), Budget(study, HOUR, owner="1/b")
    clock.cpu = 1801.0
    assert mine.look() is None
    clock.cpu = 1802.0
    assert others.look() == "the budget of 1 CPU hours (search.maxCpuHours) ended after 0 of 24 trials"


def test_an_estimated_limit_counts_from_the_end_of_the_first_trial(study: optuna.Study, clock: Clock) -> None:
    """What is loaded once does not eat up the time of a small model's search; a first trial that hangs still ends."""
    budget = Budget(study, Search(), owner="0/a", began=clock.wall - 3000, estimated=1000)
    clock.wall += 6999
    assert budget.spent() is None
    for passed, left in ((0, 1000), (400, 600)):
        clock.wall += passed
        budget.first_ended()
        assert budget.left() == left


def test_a_first_trial_that_never_ends_is_given_up(study: optuna.Study, clock: Clock) -> None:
    """Ten times the estimated limit is the most that a search waits for its first trial."""
    budget = Budget(study, Search(), owner="0/a", estimated=180)
    clock.wall += 1800
    assert budget.spent() == "the budget of 3 min (set search.maxDuration for another) ended after 0 of 24 trials"


@pytest.mark.usefixtures("clock")
def test_the_end_of_the_first_trial_changes_no_budget_of_the_owners(study: optuna.Study) -> None:
    """An hour is an hour, whatever was loaded in it."""
    budget = Budget(study, HOUR, owner="0/a", began=time.time() - 3000)
    budget.first_ended()
    assert budget.left() == 600


def test_a_small_model_has_two_minutes_and_a_large_one_what_it_needs() -> None:
    """The limit follows the estimate, and the estimate is in words before the search begins."""
    small = Estimate(24, trial_seconds=2, untrained_seconds=2)
    large = Estimate(30, trial_seconds=28, untrained_seconds=10)
    assert small.limit == LEAST_SECONDS
    assert large.limit > large.seconds == 840
    assert large.words(large.limit) == "14 min: 30 trials of ~28 s"
    assert large.words(240) == "4 min, its budget: 30 trials of ~28 s would take 14 min"


def test_a_busy_machine_has_the_time_that_its_first_trial_asks_for() -> None:
    """Three times as long for the first trial is three times as long for all; a free machine stays under 3 minutes."""
    small = Estimate(24, trial_seconds=3, untrained_seconds=2)
    assert small.after(6).limit == 3 * 24 * 3 * 1.5
    assert small.after(1).limit == small.limit == LEAST_SECONDS
    assert small.after(2.5).limit < 180
    assert small.after(1e6).seconds == 10 * small.seconds


def test_only_an_estimated_limit_is_lengthened_and_only_once(study: optuna.Study, clock: Clock, store: str) -> None:
    """The first worker that knows better tells all; nothing is taken away, and what the spec sets stays."""
    budget = Budget(study, Search(), owner="0/a", estimated=120.0)
    budget.first_ended()
    assert budget.lengthen(300.0)
    assert not Budget(open_study(store, "r1"), Search(), owner="1/b", estimated=120.0).lengthen(900.0)
    assert budget.left() == 300
    clock.wall += 301
    assert budget.spent() == "the budget of 5 min (set search.maxDuration for another) ended after 0 of 24 trials"


@pytest.mark.parametrize("search", [HOUR, Search(max_duration="1h"), Search(max_cpu_hours="1")])
@pytest.mark.usefixtures("clock")
def test_what_the_spec_sets_is_never_lengthened(study: optuna.Study, search: Search) -> None:
    """Wall time or CPU time of the owner's own stays what it is, however slow the first trial was."""
    budget = Budget(study, search, owner="0/a", estimated=120.0)
    before = budget.left()
    assert not budget.lengthen(1e6)
    assert budget.left() == before


@pytest.mark.usefixtures("clock")
def test_a_limit_is_never_shortened(study: optuna.Study) -> None:
    """A fast first trial proves nothing of those that follow it, and no later trial is asked again."""
    budget = Budget(study, Search(), owner="0/a", estimated=120.0)
    assert not budget.lengthen(60.0)
    assert not budget.lengthen(600.0)
    assert budget.left() == 120


def _endless() -> None:
    while True:
        time.sleep(0.01)


def _waiting() -> None:
    threading.Event().wait(60)


def _stubborn() -> None:
    """Go on after whatever is raised, as some libraries do, twice."""
    for _ in range(2):
        with suppress(Exception):
            _endless()
    _endless()


@pytest.mark.slow
@pytest.mark.parametrize("work", [_endless, _waiting, _stubborn])
def test_work_that_never_asks_for_the_time_is_given_up(work: Callable[[], None]) -> None:
    """Python code is interrupted wherever it is, and again when it goes on."""
    with pytest.raises(BudgetSpentError, match="given up: over"), given_up_when(lambda: "over"):
        work()


def _wrapping() -> None:
    """Make another error of whatever is raised, as engines do."""
    try:
        _endless()
    except Exception as error:
        raise RuntimeError("the engine failed") from error


def test_an_error_that_a_library_makes_of_the_interruption_is_the_interruption() -> None:
    """The trial did not fail, it had no time left; without an interruption an error stays what it is."""
    with pytest.raises(BudgetSpentError, match="given up: over"), given_up_when(lambda: "over"):
        _wrapping()
    with pytest.raises(KeyError), given_up_when(lambda: None):
        raise KeyError("mine")


def test_nothing_is_interrupted_while_the_study_is_written() -> None:
    """The trial is given up right after the write, and the handler of before is back."""
    before, written = signal.getsignal(signal.SIGALRM), []
    spent: list[str] = []

    def trial() -> None:
        with termination_held_back():
            spent.append("over")
            signal.sigtimedwait([], 1.2)
            written.append(True)
        _endless()

    with pytest.raises(BudgetSpentError), given_up_when(lambda: spent[0] if spent else None):
        trial()
    assert written == [True]
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_trial_within_its_budget_is_not_disturbed() -> None:
    """No signal, no exception, and no thread stays behind."""
    threads = threading.active_count()
    with given_up_when(lambda: None):
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
