"""The budget is kept exactly, across real worker processes on a real journal, whichever of them is killed."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optimizer_jobs.commands.search.leases import Worker
from optimizer_jobs.study.storage import journal_path
from optimizer_jobs.study.trials import TrialResult, counted, number_of, open_study, trials_table
from tests.unit.jobs import search_worker

ROOT = Path(__file__).parents[2]
BUDGET = 20


@contextmanager
def worker(store: str, index: int, *options: str, budget: int = BUDGET) -> Iterator[subprocess.Popen[str]]:
    """Run a worker process; it is killed when the block ends before it does."""
    command = [
        sys.executable,
        "-m",
        "tests.unit.jobs.search_worker",
        store,
        str(journal_path(store, "r1")),
        "--index",
        str(index),
        "--budget",
        str(budget),
        *options,
    ]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a worker prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ended_well(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for workers to end by themselves."""
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0


def check_exact(study: optuna.Study, *, budget: int) -> None:
    """The trials that count are as many as the budget, numbered 1 to the budget, each combination once."""
    trials = counted(study)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * budget
    assert sorted(number_of(trial) for trial in trials) == list(range(1, budget + 1))
    assert set(Counter(trial.user_attrs["key"] for trial in trials).values()) == {1}


def test_workers_share_the_budget_exactly(store: str) -> None:
    """Three workers that start together run every trial of the budget once."""
    with worker(store, 0) as first, worker(store, 1) as second, worker(store, 2) as third:
        ended_well([first, second, third])
    check_exact(open_study(store, "r1"), budget=BUDGET)


def test_others_finish_when_a_worker_is_killed_in_a_trial(store: str) -> None:
    """A worker killed with -9 in its trial never returns; the other waits out its lease and runs that trial too."""
    with worker(store, 0, "--hold") as victim:
        assert line(victim) == "took 1"
        victim.kill()
        victim.wait()
        with worker(store, 1) as survivor:
            ended_well([survivor])
    study = open_study(store, "r1")
    check_exact(study, budget=BUDGET)
    assert sum("died" in str(reason) for reason in study.user_attrs.values()) == 1


def test_a_restarted_worker_takes_its_own_lost_trial_at_once(store: str) -> None:
    """The same index in a new life knows that its earlier trial is lost, without waiting for any lease."""
    with worker(store, 0, "--hold", "--lease", "3600") as victim:
        assert line(victim) == "took 1"
        victim.kill()
        victim.wait()
    with worker(store, 0, "--lease", "3600") as restarted, worker(store, 1, "--lease", "3600") as other:
        ended_well([restarted, other])
    check_exact(open_study(store, "r1"), budget=BUDGET)


def test_a_worker_taken_for_dead_records_nothing(store: str) -> None:
    """What a worker finds after its trial was given to another is refused, and the total stays exact."""
    with worker(store, 0, "--hold", "--lease", "3600") as zombie:
        assert line(zombie) == "took 1"
        with worker(store, 0) as replacement:
            ended_well([replacement])
        assert zombie.stdin is not None
        zombie.stdin.write("\n")
        zombie.stdin.flush()
        assert line(zombie) == "fenced 1"
    check_exact(open_study(store, "r1"), budget=BUDGET)


def test_a_trial_that_kills_its_workers_is_given_up(store: str) -> None:
    """After two deaths a trial counts as failed, so that the run ends and says so."""
    for _ in range(2):
        with worker(store, 0, "--hold", "--lease", "3600", budget=1) as victim:
            assert line(victim) == "took 1"
            victim.kill()
            victim.wait()
    with worker(store, 0, budget=1) as last:
        ended_well([last])
    (row,) = trials_table(open_study(store, "r1"))
    assert (row.number, row.outcome) == (1, "failed")
    assert "more memory" in (row.result.reason or "")


@pytest.fixture
def journal(store: str) -> Path:
    """The journal's path, for claims in this process."""
    return journal_path(store, "r1")


def test_a_trial_handed_back_is_run_again_with_its_parameters(store: str, journal: Path) -> None:
    """What a stopped worker returns loses nothing but time."""
    claims = search_worker.open_claims(store, "r1", index=0, budget=1, lease=60, journal=journal)
    space = search_worker.space()
    first = claims.take(space.draw, space.fresh)
    assert first is not None
    claims.hand_back(first, "stopped")
    assert not claims.finished()
    again = claims.take(space.draw, space.fresh)
    assert again is not None
    assert (again.params, claims.number(again)) == (first.params, claims.number(first))


def test_a_search_started_again_goes_on_where_it_stood(store: str, journal: Path) -> None:
    """The same run name with trials finished leaves only the rest to do."""
    space = search_worker.space()
    claims = search_worker.open_claims(store, "r1", index=0, budget=2, lease=60, journal=journal)
    for expected in (1, 2):
        trial = claims.take(space.draw, space.fresh)
        assert trial is not None
        assert claims.number(trial) == expected
        claims.tell(trial, search_worker.found(space.draw(trial)), state=TrialState.COMPLETE)
        claims = search_worker.open_claims(store, "r1", index=0, budget=2, lease=60, journal=journal)
    assert claims.finished()
    assert claims.take(space.draw, space.fresh) is None


def test_when_every_combination_was_tried_the_rest_repeats(store: str, journal: Path) -> None:
    """A space smaller than the budget marks the trials that can bring nothing new; none is left out of the count."""
    claims = search_worker.open_claims(store, "r1", index=0, budget=30, lease=60, journal=journal)
    space = search_worker.space(techniques=())
    repeats = []
    while (trial := claims.take(space.draw, space.fresh)) is not None:
        repeats.append(claims.repeats(trial))
        claims.tell(trial, TrialResult(plan="", costs=(0.0, 0.0)), state=TrialState.COMPLETE)
    assert repeats == [False] * 15 + [True] * 15


def test_a_line_that_a_killed_writer_left_unfinished_is_cut_off(store: str, journal: Path) -> None:
    """Half a line at the journal's end costs nothing: the next writer removes it."""
    search_worker.open_claims(store, "r1", index=0, budget=1, lease=60, journal=journal)
    with journal.open("a") as file:
        file.write('{"op_code": 5, "half')
    claims = search_worker.open_claims(store, "r1", index=1, budget=1, lease=60, journal=journal)
    space = search_worker.space()
    assert claims.take(space.draw, space.fresh) is not None
    assert len(open_study(store, "r1").get_trials()) == 1


def test_a_worker_names_its_life() -> None:
    """Two lives of one worker are told apart."""
    assert Worker(3).owner.startswith("3/")
    assert Worker(3).owner != Worker(3).owner
