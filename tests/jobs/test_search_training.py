"""Searches that really train: killed, stopped and out of budget in the middle of it, as processes of their own."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

pytest.importorskip("torch")

from optimizer_jobs.commands.search.budget import Budget
from optimizer_jobs.commands.search.early_stopping import Watch
from optimizer_jobs.commands.search.preparation import prepare
from optimizer_jobs.study.trials import TrialResult, counted, number_of, open_study, trials_table
from optimizer_jobs.technique import StoppedEarlyError
from retune.api.search import Search
from retune.api.techniques import Parameter, Technique, TechniqueType, Tuning
from retune.contract.requests import SearchRequest
from retune.contract.results import SearchResult, parse_result
from tests.jobs.test_search_command import ask  # noqa: F401 - the same requests
from tests.jobs.workers import job, until

pytestmark = pytest.mark.torch

RATE = "tune.learning_rate"
Ask = Callable[..., SearchRequest]


def training(epochs: int, *, batch: int = 16) -> Technique:
    """Return hyperparameter tuning for so many epochs, however early the best one was."""
    fixed = [("epochs", epochs), ("patience", epochs), ("batch_size", batch)]
    rates = Parameter(name="learning_rate", min="0.00001", max="0.01", log=True)
    given = tuple(Parameter(name=name, values=(str(value),)) for name, value in fixed)
    return Technique(name="tune", type=TechniqueType.HYPERPARAMETER_TUNING, tuning=Tuning(parameters=(*given, rates)))


def has_a_curve(request: SearchRequest) -> bool:
    """Return whether a running trial has reported an epoch."""
    trials = open_study(request.store, request.run).get_trials(states=(TrialState.RUNNING,))
    return any(name.startswith("curve:") for trial in trials for name in trial.user_attrs)


def amid_training(process: subprocess.Popen[str], request: SearchRequest) -> None:
    """Wait until a worker is in the middle of an endless training."""
    until(process, "training on")
    deadline = time.monotonic() + 60
    while not has_a_curve(request):
        assert time.monotonic() < deadline, "no epoch was reported"
        assert process.poll() is None, "the worker ended"


def check_exact(request: SearchRequest) -> None:
    """All trials of the budget are there, each once, and none is lost."""
    trials = counted(open_study(request.store, request.run))
    assert all(trial.state.is_finished() for trial in trials)
    assert sorted(number_of(trial) for trial in trials) == list(range(1, request.search.max_trials + 1))


def test_a_worker_killed_in_training_loses_and_doubles_no_trial(ask: Ask, tmp_path: Path) -> None:  # noqa: F811
    """Killed by -9 between two epochs: its trial is run again with its parameters, and the budget is kept exactly."""
    request = ask(threads=1, search=Search(max_trials=5, parallelism=2), techniques=(training(100, batch=512),))
    with job(request, tmp_path / "0") as victim:
        amid_training(victim, request)
        (lost,) = open_study(request.store, request.run).get_trials(states=(TrialState.RUNNING,))
        victim.kill()
        victim.wait()
    with job(request, tmp_path / "0") as restarted, job(request, tmp_path / "1", index=1) as other:
        for process in (restarted, other):
            process.communicate(timeout=120)
            assert process.returncode == 0
    check_exact(request)
    again = [trial for trial in counted(open_study(request.store, request.run)) if trial.params == lost.params]
    assert [trial.state for trial in again] == [TrialState.COMPLETE]
    assert again[0].number != lost.number


def test_sigterm_in_training_hands_the_trial_back_at_once(ask: Ask, tmp_path: Path) -> None:  # noqa: F811
    """A training that would go on for minutes is given to whoever comes next, with its parameters."""
    request = ask(threads=1, search=Search(max_trials=3), techniques=(training(10_000),))
    with job(request, tmp_path / "0") as worker:
        amid_training(worker, request)
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)
        assert worker.returncode == 128 + signal.SIGTERM
    study = open_study(request.store, request.run)
    assert study.get_trials(states=(TrialState.RUNNING,)) == []
    assert len(counted(study)) == 3


def test_an_endless_training_has_its_share_of_the_time_and_counts(ask: Ask, tmp_path: Path) -> None:  # noqa: F811
    """It ends with what it has learned while others still have time, and is a candidate like any other."""
    request = ask(threads=1, search=Search(max_trials=9, max_duration="30s"), techniques=(training(10_000),))
    with job(request, tmp_path / "0") as worker:
        output = worker.communicate(timeout=100)[0]
        assert worker.returncode == 0
    assert "it has had its share of the time" in output
    rows = trials_table(open_study(request.store, request.run))
    trained = [row for row in rows if row.result.steps and row.outcome == "feasible"]
    assert trained, output
    assert trained[0].number < len(rows), "no trial came after it"


def test_a_budget_ends_a_training_in_good_order(ask: Ask, tmp_path: Path) -> None:  # noqa: F811
    """The endless training is given up, the control is still the best so far, and a restart runs nothing more."""
    search = Search(max_trials=9, max_cpu_hours="0.002")
    request = ask(threads=1, search=search, techniques=(training(10_000),))
    with job(request, tmp_path / "0") as worker:
        output = worker.communicate(timeout=100)[0]
        assert worker.returncode == 0
    result = parse_result(output.splitlines()[-1])
    assert isinstance(result, SearchResult)
    assert result.trials < 9
    assert result.ended is not None
    assert result.ended.startswith("the budget of 0.002 CPU hours (search.maxCpuHours) ended after ")
    last = trials_table(open_study(request.store, request.run))[-1]
    assert last.result.reason == f"given up: {result.ended}"
    assert f"given up: {result.ended}" in output
    assert f"({result.ended}), best: " in output
    with job(request, tmp_path / "0") as again:
        assert parse_result(again.communicate(timeout=100)[0].splitlines()[-1]) == result


def test_training_that_falls_behind_ends_early(ask: Ask, tmp_path: Path) -> None:  # noqa: F811
    """After four trainings from nothing at a good rate, one at a rate far too small is stopped and says why."""
    request = ask(threads=1, search=Search(), techniques=(training(12, batch=64),))
    bench, space, _ = prepare(request, tmp_path)
    study = open_study(request.store, request.run, create=request.objectives)

    def run(rate: float) -> TrialResult:
        study.enqueue_trial(space.control() | {"tune.mode": "Searched", "tune.start": "Scratch"} | {RATE: rate})
        trial = study.ask()
        budget = Budget(study, request.search, owner="0/a")
        watch = Watch(trial, study, rule="Auto", budget=budget, enough=bench.enough)
        return bench.run(space.draw(trial), number=trial.number + 1, watch=watch)

    for rate in (0.01, 0.009, 0.008, 0.007):
        assert run(rate).values["accuracy"] > 0.8
    with pytest.raises(StoppedEarlyError, match=r"^stopped early at epoch 3: behind the median of 4 trials$"):
        run(0.00001)
