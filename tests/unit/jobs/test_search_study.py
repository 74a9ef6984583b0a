"""What judge and report read from a study: finalists in order, and the trials with their reasons."""

from collections.abc import Sequence
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from optimizer_jobs.errors import JobError
from optimizer_jobs.study import trials as studies
from optimizer_jobs.study.finalists import finalists
from optimizer_jobs.study.prospects import Hurdle
from optimizer_jobs.study.storage import journal_path
from optimizer_jobs.study.trials import NUMBER, RESULT, TrialResult, open_study, read_result, record, trials_table
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import Goal, GoalType, Objective, default_objectives
from retune.contract.results import Reason

GOAL = Goal(type=GoalType.MAX_DEGRADATION, value="0.02")
OBJECTIVES = default_objectives(Task.CLASSIFICATION)

LATENCY, SIZE = Metric.LATENCY_P95_MS.value, Metric.SIZE_BYTES.value


def candidate(
    digit: int, *, latency: float, size: float, loses: float = 0.0, techniques: Sequence[str] = ("x",)
) -> TrialResult:
    """Return a measured candidate with ratios to a champion of accuracy 0.95, 1 ms and 1000 bytes."""
    return TrialResult(
        plan=f"plan {digit}",
        techniques=tuple(techniques),
        uri=f"pvc://s/bundles/{digit}",
        digest="sha256:" + f"{digit:x}" * 64,
        size_bytes=int(1000 * size),
        costs=(latency, size),
        values={"accuracy": 0.95 - loses, LATENCY: latency, SIZE: 1000 * size},
        champion={"accuracy": 0.95, LATENCY: 1.0, SIZE: 1000.0},
        shortfalls={"accuracy": loses - 0.01},
    )


def study_of(store: str, *found: TrialResult) -> optuna.Study:
    """Return a study on disk with these candidates as its trials, in order."""
    study = open_study(store, "r1", create=OBJECTIVES)
    for number, one in enumerate(found, start=1):
        study.add_trial(create_trial(values=list(one.costs), user_attrs={RESULT: record(one), NUMBER: number}))
    return open_study(store, "r1")


def order(study: optuna.Study, count: int = 5, exclude: Sequence[str] = ()) -> list[int]:
    """Return the finalists by trial number."""
    return [one.trial for one in finalists(study, OBJECTIVES, count=count, exclude_digests=exclude)]


def test_finalists_come_by_importance_with_the_front_before_the_rest(store: str) -> None:
    """Latency first; what is beaten in everything comes last."""
    fast, small, beaten = (
        candidate(1, latency=0.4, size=0.9),
        candidate(2, latency=0.6, size=0.2),
        candidate(3, latency=0.7, size=0.95),
    )
    assert order(study_of(store, beaten, small, fast)) == [3, 2, 1]


def test_within_tolerance_the_next_objective_decides(store: str) -> None:
    """A latency 3 % worse is the same at a tolerance of 5 %, so the smaller file wins."""
    faster, smaller = candidate(1, latency=0.400, size=0.9), candidate(2, latency=0.412, size=0.3)
    assert order(study_of(store, faster, smaller)) == [2, 1]


def test_a_tie_goes_to_fewer_techniques(store: str) -> None:
    """Of two equal candidates the simpler one is proposed first."""
    complicated = candidate(1, latency=0.4, size=0.3, techniques=("a", "b"))
    simple = candidate(2, latency=0.4, size=0.3, techniques=("a",))
    assert order(study_of(store, complicated, simple)) == [2, 1]


def judged(study: optuna.Study, count: int, *chances: float) -> list[int]:
    """Return the finalists by trial number, given the chances of plan 1, plan 2 and so on."""

    def chance(found: TrialResult) -> float:
        return chances[int(found.plan.removeprefix("plan ")) - 1]

    return [one.trial for one in finalists(study, OBJECTIVES, count=count, chance=chance)]


def test_one_of_several_finalists_is_as_good_as_sure_to_be_proven(store: str) -> None:
    """The boldest may fail where evidence is asked for, so the best of the sure is judged with them, if it gains."""
    bold = [candidate(digit, latency=0.1 * digit, size=0.1) for digit in (1, 2, 3)]
    useless, sure = candidate(4, latency=1.02, size=1.0), candidate(5, latency=0.7, size=0.3)
    study = study_of(store, *bold, useless, sure)
    assert judged(study, 2, 0.6, 0.6, 0.6, 1.0, 0.95) == [1, 5]
    assert judged(study, 1, 0.6, 0.6, 0.6, 1.0, 0.95) == [1]
    assert judged(study, 5, 0.6, 0.6, 0.6, 1.0, 0.95) == [1, 2, 3, 5, 4]
    assert judged(study, 2, 0.6, 0.95, 0.6, 1.0, 0.95) == [1, 2]


def test_what_is_hardly_proven_is_judged_only_when_there_is_room(store: str) -> None:
    """Near copies of one bold candidate would else take all places, and the run would end with nothing."""
    study = study_of(store, *(candidate(digit, latency=0.1 * digit, size=0.1) for digit in (1, 2, 3, 4)))
    assert judged(study, 2, 0.4, 0.4, 0.6, 0.95) == [3, 4]
    assert judged(study, 3, 0.4, 0.4, 0.6, 0.95) == [1, 3, 4]
    assert judged(study, 2, 0.1, 0.2, 0.4, 0.3) == [3, 4]


def test_finalists_are_spread_from_bold_to_cautious(store: str) -> None:
    """Of many that may well pass, one is taken for each step of caution, not the fastest few."""
    study = study_of(store, *(candidate(digit, latency=0.1 * digit, size=0.1) for digit in range(1, 7)))
    assert judged(study, 3, 0.55, 0.56, 0.57, 0.75, 0.8, 0.95) == [1, 4, 6]
    assert judged(study, 2, 0.55, 0.56, 0.57, 0.75, 0.8, 0.95) == [1, 6]
    assert judged(study, 3, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) == [1, 2, 3]


def test_one_that_has_learned_new_data_is_judged_beside_near_copies_of_the_champion(store: str) -> None:
    """Numbers of a real run after the live data had changed: near copies are sure to lose nothing, and help nobody."""
    goals = [Objective(metric=Metric.ACCURACY, goal=GOAL), Objective(metric=Metric.SIZE_BYTES)]
    study = open_study(store, "r1", create=goals)
    measured = {"copy": (0.684, 0.004, 0.99), "another copy": (0.682, 0.004, 0.98), "trained on": (0.980, 0.020, 1.0)}
    for number, (plan, (accuracy, error, size)) in enumerate(measured.items(), start=1):
        result = replace(
            candidate(number, latency=1.0, size=size),
            plan=plan,
            values={"accuracy": accuracy},
            champion={"accuracy": 0.682},
            shortfalls={"accuracy": 0.682 - 0.02 - accuracy},
            errors={"accuracy": error},
            costs=(0.682 - accuracy, size),
            rows=488,
        )
        study.add_trial(create_trial(values=list(result.costs), user_attrs={RESULT: record(result), NUMBER: number}))
    chosen = finalists(study, goals, count=1, chance=Hurdle(488, 0.95).chance)
    assert [one.result.plan for one in chosen] == ["trained on"]


def test_the_best_that_a_user_would_get_in_one_line_is_always_judged(store: str) -> None:
    """It takes no other's place, and it is left out where it gains nothing or misses a limit."""
    others = [candidate(digit, latency=0.1 * digit, size=0.1) for digit in (1, 2, 3)]
    lines = [
        replace(candidate(4, latency=0.8, size=0.3), one_line=True),
        replace(candidate(5, latency=0.6, size=0.3), one_line=True),
        replace(candidate(6, latency=0.05, size=0.3, loses=0.2), one_line=True),
        replace(candidate(7, latency=1.2, size=1.2), one_line=True),
    ]
    certain = (1.0,) * 7
    assert judged(study_of(store, *others, *lines), 2, *certain) == [1, 2, 5]
    study = open_study(store, "r2", create=OBJECTIVES)
    for number, result in enumerate((others[0], *lines[2:]), start=1):
        study.add_trial(create_trial(values=list(result.costs), user_attrs={RESULT: record(result), NUMBER: number}))
    assert judged(study, 1, *certain) == [1]


def test_candidates_that_miss_a_limit_are_no_finalists(store: str) -> None:
    """The fastest of all is not proposed when it loses too much accuracy."""
    broken, good = candidate(1, latency=0.1, size=0.1, loses=0.2), candidate(2, latency=0.8, size=0.8)
    assert order(study_of(store, broken, good)) == [2]


def test_without_a_feasible_candidate_the_least_bad_one_is_named(store: str) -> None:
    """The judge can then say by how much it fails."""
    study = study_of(
        store, candidate(1, latency=0.1, size=0.1, loses=0.2), candidate(2, latency=0.2, size=0.2, loses=0.1)
    )
    (closest,) = finalists(study, OBJECTIVES, count=3)
    assert (closest.trial, closest.feasible) == (2, False)
    assert closest.words == "plan 2: accuracy 0.850 (-0.100)  p95 x0.20  size x0.20"


def test_excluded_and_repeated_digests_are_left_out(store: str) -> None:
    """What was rejected is not proposed, and one bundle is proposed once."""
    one, two = candidate(1, latency=0.3, size=0.3), candidate(2, latency=0.4, size=0.4)
    assert one.digest is not None
    assert order(study_of(store, one, two, two)) == [1, 2]
    assert order(open_study(store, "r1"), exclude=[one.digest]) == [2]


def test_trials_table_gives_every_outcome_with_its_reason(store: str) -> None:
    """Discarded and failed trials are shown with why."""
    study = study_of(store, candidate(1, latency=0.3, size=0.3), candidate(2, latency=0.3, size=0.3, loses=0.2))
    for number, (state, reason) in enumerate(
        [(TrialState.PRUNED, "agrees on 40%"), (TrialState.FAIL, "broke")], start=3
    ):
        attributes = {RESULT: record(TrialResult(plan="p", reason=reason)), NUMBER: number}
        study.add_trial(create_trial(state=state, user_attrs=attributes))
    rows = trials_table(study)
    assert [(row.number, row.outcome, row.result.reason) for row in rows] == [
        (1, "feasible", None),
        (2, "infeasible", None),
        (3, "discarded", "agrees on 40%"),
        (4, "failed", "broke"),
    ]


def test_what_a_trial_found_survives_the_journal(store: str) -> None:
    """A record read back is the record written."""
    one = candidate(7, latency=0.5, size=0.5)
    (trial,) = study_of(store, one).get_trials()
    assert read_result(trial) == one


def test_infeasible_trials_are_known_to_the_sampler(store: str) -> None:
    """Optuna's own best trials leave out what misses a limit, once the limits are recorded with the trial."""
    study = open_study(store, "r1", create=OBJECTIVES)
    for loses in (0.2, 0.0):
        trial = study.ask()
        studies.constrain(trial, candidate(1, latency=0.1 + loses, size=0.5, loses=loses))
        study.tell(trial, [0.1 if loses else 0.5, 0.5])
    assert [trial.number for trial in study.best_trials] == [1]


def test_a_run_without_a_study_is_said_so(store: str) -> None:
    """The judge does not create a study by looking for one."""
    with pytest.raises(JobError) as caught:
        open_study(store, "r1")
    assert "no study" in caught.value.message
    assert not journal_path(store, "r1").exists()


def test_a_store_that_nothing_opens_cannot_hold_a_study() -> None:
    """It is refused with the addresses that can."""
    with pytest.raises(JobError) as caught:
        open_study("memory://store", "r1", create=OBJECTIVES)
    assert caught.value.reason is Reason.REQUEST_INVALID
    assert "pvc://" in caught.value.next_step


def test_objectives_decide_the_directions(store: str) -> None:
    """One direction for each optimized objective, all to minimize."""
    study = open_study(store, "r1", create=(*OBJECTIVES, Objective(metric=Metric.LATENCY_P50_MS)))
    assert [direction.name for direction in study.directions] == ["MINIMIZE"] * 3


def test_the_champion_measured_as_a_control_is_no_finalist(store: str) -> None:
    """What is the champion already cannot replace it, however lucky its timing was."""
    control = replace(candidate(1, latency=0.9, size=1.0), control=True)
    assert order(study_of(store, control, candidate(2, latency=1.0, size=0.4))) == [2]
    assert [row.outcome for row in trials_table(open_study(store, "r1"))] == ["feasible", "feasible"]
