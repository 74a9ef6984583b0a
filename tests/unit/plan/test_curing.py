"""Where a loss is seen that no run can restore, the status says what would help; where one can, it says nothing."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retune.api.status import ConditionStatus, ConditionType
from retune.api.watched import Verdict
from retune.plan.closing import curing
from retune.plan.draft import condition_of
from tests.unit.plan.test_monitoring import HOUR, judged, watched
from tests.unit.plan.world import World

LABELLED = {"uri": "pvc://store/production", "labels": {"uri": "pvc://store/labels", "maxDelay": "1m"}}
QUICK: dict[str, Any] = {"cooldown": "1s", "maxCooldown": "1s", "maxRunsPerDay": 24}


def watching(*, production: dict[str, Any] | None = None, **changes: Any) -> World:
    """A world that is watched by the hour, whose labels come within a minute."""
    return watched(monitoring={"production": production or LABELLED, "window": "1h", "delay": "1m"}, **changes)


def suffering(world: World, windows: int = 2, **said: Any) -> World:
    """Let quality be lost for so many windows."""
    for _ in range(windows):
        judged(world, **{"quality": Verdict.BREACH, "labelled": 900} | said)
    return world


def told(world: World) -> tuple[ConditionStatus, str, str]:
    """Status, reason and message of Curable."""
    found = condition_of(world.resource.status, ConditionType.CURABLE)
    assert found is not None
    return found.status, found.reason, found.message


def test_a_watched_model_that_loses_nothing_has_no_such_condition() -> None:
    """It comes with the first raised signal."""
    world = watching()
    judged(world, quality=Verdict.CLEAR, labelled=900)
    judged(world, quality=Verdict.BREACH, labelled=900)
    assert condition_of(world.resource.status, ConditionType.CURABLE) is None


def test_what_can_be_learned_is_curable_and_later_nothing_is_lost() -> None:
    """It is told as long as something is raised, and taken back when it clears."""
    world = suffering(watching(refresh={"minRows": 5000}))
    assert told(world)[:2] == (ConditionStatus.TRUE, "CanBeLearned")
    judged(world, quality=Verdict.CLEAR, labelled=900)
    assert told(world)[:2] == (ConditionStatus.TRUE, "NothingLost")


@pytest.mark.parametrize(
    ("types", "learns"),
    [
        (["Quantization", "GraphOptimization"], False),
        (["Distillation", "Pruning", "Factorization"], False),
        (["Quantization", "HyperparameterTuning"], True),
        (["Recalibration"], True),
        (None, True),
    ],
    ids=str,
)
def test_techniques_that_only_compress_restore_nothing(types: list[str] | None, *, learns: bool) -> None:
    """They are named, and one that learns is."""
    techniques = [{"name": f"t{number}", "type": kind} for number, kind in enumerate(types or [])] or None
    status, reason, message = told(suffering(watching(techniques=techniques)))
    assert (status is ConditionStatus.TRUE) == learns
    if not learns:
        assert reason == "NoTechniqueLearns"
        assert "Quality is raised, but no technique" in message
        assert "(t0, t1" in message
        assert "HyperparameterTuning" in message


def test_drift_without_labels_asks_for_labels() -> None:
    """With the number of rows that a run would need."""
    world = watching(production={"uri": "pvc://store/production"})
    for _ in range(2):
        judged(world, drift=Verdict.BREACH)
    status, reason, message = told(world)
    assert (status, reason) == (ConditionStatus.FALSE, "LabelsNotNamed")
    assert "monitoring.production.labels" in message
    assert "about 1000 rows" in message


def test_fresh_data_that_the_spec_forbids_is_named() -> None:
    """A policy that the user wrote is kept, and told."""
    _, reason, message = told(suffering(watching(refresh={"policy": "Never"})))
    assert reason == "FreshDataNotUsed"
    assert "refresh.policy" in message


def test_labels_that_come_after_their_rows_are_gone_are_told() -> None:
    """Rows are kept for two hours, and labels may take three."""
    late = {
        "uri": "pvc://store/production",
        "labels": {"uri": "pvc://store/labels", "maxDelay": "3h"},
        "retention": "2h",
    }
    world = watching(production=late)
    for _ in range(2):
        judged(world, drift=Verdict.BREACH)
    _, reason, message = told(world)
    assert reason == "LabelsTooLate"
    assert "2h (production.retention)" in message
    assert "3h (production.labels.maxDelay)" in message


@pytest.mark.parametrize(
    ("labelled", "reason", "missing"),
    [
        (0, "LabelsMissing", "about 1000 more rows"),
        (10, "LabelsTooFew", "about 980 more rows"),
        (480, "LabelsTooFew", "about 40 more"),
    ],
)
def test_labels_that_are_missing_are_counted(labelled: int, reason: str, missing: str) -> None:
    """Of two windows of 900 rows each, 1000 labelled rows are needed."""
    world = watching(triggers={"corroboration": "None"})
    for _ in range(2):
        judged(world, drift=Verdict.BREACH, labelled=labelled)
    status, found, message = told(world)
    assert (status, found) == (ConditionStatus.FALSE, reason)
    assert f"labels for {missing}" in message
    assert "of the last 2 windows" in message


@pytest.mark.parametrize("labelled", [None, 600, 900], ids=["an older image", "enough", "all"])
def test_labels_that_suffice_or_that_nobody_counted_are_not_missed(labelled: int | None) -> None:
    """A check of an older image does not say how many there are."""
    assert told(suffering(watching(), labelled=labelled))[:2] == (ConditionStatus.TRUE, "CanBeLearned")


def test_rows_that_have_not_been_asked_yet_are_no_missing_labels() -> None:
    """Where time alone brings them, the run waits, and nobody is asked for anything."""
    assert told(suffering(watching(refresh={"minRows": 2000}), labelled=300))[1] == "CanBeLearned"


def test_runs_that_brought_nothing_say_so_while_it_is_still_lost() -> None:
    """From as many as open the circuit, the first run among them; before, the next one may well help."""
    world = suffering(watching(triggers=QUICK))
    reasons = {world.resource.status.triggers.no_gain_streak: told(world)[1]}
    while world.resource.status.triggers.circuit is None:
        world.settle()
        world.wait(2 * HOUR)
        judged(world, quality=Verdict.BREACH, labelled=900)
        reasons[world.resource.status.triggers.no_gain_streak] = told(world)[1]
    assert reasons == {1: "CanBeLearned", 2: "CanBeLearned", 3: "NothingGained"}
    assert "3 runs in a row brought nothing" in told(world)[2]


def test_nothing_is_written_while_nothing_changes() -> None:
    """Between two windows the sentence stays as it is, whenever the operator looks."""
    world = suffering(watching(refresh={"minRows": 100000}), labelled=1)
    world.reconcile()
    before = told(world)
    for _ in range(5):
        world.wait(600)
        assert world.reconcile() == 0
    assert told(world) == before


@settings(max_examples=12, deadline=None)
@given(
    labelled=st.one_of(st.none(), st.integers(0, 900)),
    windows=st.integers(2, 4),
    least=st.integers(100, 5000),
    techniques=st.sampled_from([None, "Quantization", "Recalibration"]),
    drift=st.booleans(),
)
def test_it_is_false_only_with_a_sentence_that_says_what_would_help(
    labelled: int | None, windows: int, least: int, techniques: str | None, *, drift: bool
) -> None:
    """Whatever is watched and found: what is asked for is never nothing, nor more than a run needs by a tenth."""
    listed = [{"name": "one", "type": techniques}] if techniques else None
    world = watching(refresh={"minRows": least}, techniques=listed)
    for _ in range(windows):
        verdicts = {"drift": Verdict.BREACH} if drift else {"quality": Verdict.BREACH}
        judged(world, labelled=labelled, **verdicts)
    status, reason, message = told(world)
    if status is ConditionStatus.FALSE:
        assert "is raised, but " in message
        assert len(message) < 1024
    if reason in {"LabelsMissing", "LabelsTooFew"}:
        asked = int(message.split("labels for about ")[1].split()[0])
        assert 0 < asked <= least * 1.1 + 1


@given(st.integers(1, 10**6))
def test_numbers_are_rounded_up_to_two_digits(count: int) -> None:
    """Nobody is asked for too few, nor for a precision that is not there."""
    rounded = curing._rounded(count)
    assert count <= rounded <= count * 1.1 + 1
    assert len(str(rounded).rstrip("0")) <= 2
