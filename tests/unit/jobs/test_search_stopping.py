"""Training that falls behind trainings of its kind ends early; what keeps the limits goes on."""

from collections.abc import Callable, Mapping, Sequence

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.commands.search.budget import Budget
from optimizer_jobs.commands.search.early_stopping import Watch, below_best_share, below_median, curves_of, is_rung
from optimizer_jobs.study.trials import open_study
from optimizer_jobs.technique import StoppedEarlyError
from retune.api.model import Task
from retune.api.objectives import default_objectives
from retune.api.search import Search


def never(_: float) -> bool:
    """No quality is good enough."""
    return False


def watching(study: optuna.Study, rule: str = "Auto", enough: Callable[[float], bool] = never) -> Watch:
    """Return the watch of a new trial."""
    search = Search.model_validate({"earlyStopping": rule})
    budget = Budget(study, search, owner="0/a")
    return Watch(study.ask(), study, rule=search.early_stopping, budget=budget, enough=enough)


def train(watch: Watch, curve: Sequence[float], *, group: str = "HyperparameterTuning+Scratch") -> int:
    """Report a curve and return the epochs it lasted."""
    watch.entering(group)
    for epoch, quality in enumerate(curve, start=1):
        try:
            watch.report(epoch, quality)
        except StoppedEarlyError:
            return epoch
    return len(curve)


@pytest.fixture
def study(store: str) -> optuna.Study:
    """A study on disk with the curves of seven trainings that end at 0.90 to 0.96."""
    study = open_study(store, "r1", create=default_objectives(Task.CLASSIFICATION))
    for extra in range(7):
        assert train(watching(study, "None"), [0.5]) == 1
        assert train(watching(study, enough=lambda _: True), _curve(0.9 + extra / 100)) == 9
    return study


def _curve(end: float) -> list[float]:
    return [end - 0.05 * (9 - epoch) for epoch in range(1, 10)]


def test_what_is_behind_the_median_stops_after_the_warm_up(study: optuna.Study) -> None:
    """The reason names the epoch and how many were compared with."""
    watch = watching(study)
    watch.entering("HyperparameterTuning+Scratch")
    watch.report(1, 0.1)
    watch.report(2, 0.1)
    with pytest.raises(StoppedEarlyError, match=r"^stopped early at epoch 3: behind the median of 7 trials$"):
        watch.report(3, 0.1)


@pytest.mark.usefixtures("study")
def test_workers_see_each_others_curves(store: str) -> None:
    """Another process that opens the study reads what running trials reported."""
    elsewhere = open_study(store, "r1")
    assert len(curves_of(elsewhere, "HyperparameterTuning+Scratch#0")) == 7
    assert train(watching(elsewhere), [0.1] * 9) == 3


def test_the_median_itself_goes_on(study: optuna.Study) -> None:
    """Half of all trainings are never stopped by it."""
    assert train(watching(study), _curve(0.93)) == 9
    assert train(watching(study), _curve(0.91)) == 3


def test_a_late_start_that_catches_up_is_judged_by_its_best(study: optuna.Study) -> None:
    """One bad epoch after a good one stops nothing."""
    assert train(watching(study), [0.5, 0.9, 0.1, *_curve(0.96)[3:]]) == 9


def test_another_kind_of_training_is_not_compared(study: optuna.Study) -> None:
    """A student from nothing is no slower tuning of what was delivered."""
    assert train(watching(study), [0.1] * 9, group="Distillation") == 9


def test_a_second_training_in_a_step_is_compared_with_second_ones(study: optuna.Study) -> None:
    """Rounds of pruning start again at epoch 1, and later rounds are worse than the first."""
    watch = watching(study)
    assert train(watch, _curve(0.96)) == 9
    for epoch in range(1, 6):
        watch.report(epoch, 0.1)
    assert list(curves_of(study, "HyperparameterTuning+Scratch#1").values()) == [dict.fromkeys(range(1, 6), 0.1)]


def test_quality_that_keeps_the_limit_is_never_stopped(study: optuna.Study) -> None:
    """A small model that is good enough may win by its size, however it compares."""
    assert train(watching(study, enough=lambda quality: quality >= 0.3), [0.3] * 9) == 9


def test_nothing_is_stopped_when_told_so(study: optuna.Study) -> None:
    """EarlyStopping None trains to the end, and writes no curve."""
    assert train(watching(study, "None"), [0.1] * 9) == 9
    assert len(curves_of(study, "HyperparameterTuning+Scratch#0")) == 7


def test_qualities_are_recorded_together_where_each_record_costs_a_request(study: optuna.Study) -> None:
    """At the first epoch, when the training is stopped, and when its step ends; none is lost."""
    trial, noted = study.ask(), list[Mapping[str, float]]()
    budget = Budget(study, Search(), owner="0/a")
    watch = Watch(trial, study, rule="Median", budget=budget, enough=never, note=noted.append, every_seconds=60.0)
    assert train(watch, _curve(0.96)) == 9
    assert [len(some) for some in noted] == [1]
    watch.entering("measuring")
    assert [len(some) for some in noted] == [1, 8]
    assert list(noted[1].values()) == _curve(0.96)[1:]
    assert train(watch, [0.1] * 9) == 3
    assert [len(some) for some in noted] == [1, 8, 3]


def test_few_curves_stop_nothing(store: str) -> None:
    """With three trainings to compare with, the fourth goes on."""
    study = open_study(store, "r1", create=default_objectives(Task.CLASSIFICATION))
    for _ in range(3):
        train(watching(study), _curve(0.9))
    assert train(watching(study), [0.1] * 9) == 9


def test_successive_halving_decides_at_its_rungs(study: optuna.Study) -> None:
    """Of eight at epoch 3 the best two go on; the third best stops there, and not before."""
    assert train(watching(study, "SuccessiveHalving"), _curve(0.955)) == 9
    watch = watching(study, "SuccessiveHalving")
    watch.entering("HyperparameterTuning+Scratch")
    watch.report(1, 0.1)
    watch.report(2, 0.1)
    with pytest.raises(StoppedEarlyError, match=r"^stopped early at epoch 3: not among the best 3 of 9 trials$"):
        watch.report(3, 0.1)


def test_rungs_are_three_times_apart() -> None:
    """Each survivor trains three times as long as the last decision took."""
    assert [epoch for epoch in range(1, 100) if is_rung(epoch)] == [3, 9, 27, 81]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_best_is_never_behind(qualities: list[float]) -> None:
    """Whatever the others did, the best of all goes on under both rules."""
    others = [{1: quality, 3: quality} for quality in qualities]
    best = max(qualities)
    assert below_median(best, others, 3) is None
    assert below_best_share(best, others, 3) is None
