"""A newly delivered model before the judge: it need not gain, must not be worse, and must be of the champion's kind."""

from typing import Any

import pytest

from optimizer_jobs.commands.judge.delivered import held, objectives_of_delivered
from optimizer_jobs.commands.judge.verdict import Decision, decide, why
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Lineage, Manifest
from optimizer_jobs.models.runtime import EngineOptions
from optimizer_jobs.signature import Reading, Scale, Signature, TensorSpec
from optimizer_jobs.study.comparable import require_comparable
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import GoalType, Objective
from retune.contract.results import Reason, Verdict
from tests.samples import judge_request
from tests.unit.jobs.judge_for_tests import contender, evidence, limit, ref, wanted

ACCURACY, P95, SIZE = Metric.ACCURACY, Metric.LATENCY_P95_MS, Metric.SIZE_BYTES
USUAL = (limit(ACCURACY, GoalType.MAX_DEGRADATION, "0.02"), wanted(P95), wanted(SIZE))
READING = Reading(scores="scores", scale=Scale.PROBABILITIES, positive=0, rarest=0.1)


def decided(*, objectives: tuple[Objective, ...] = USUAL, **measured: Any) -> Decision:
    """Return the decision on a delivered model that was measured so."""
    return decide(evidence(contender(**measured)), objectives=objectives, min_gain=0.05, delivered=True)


def manifest(**changes: Any) -> Manifest:
    """Return what is written of a classifier of ten classes, but for these changes."""
    signature = {
        "inputs": (TensorSpec(name="x", dtype="float32", shape=(-1, 64)),),
        "outputs": (TensorSpec(name="scores", dtype="float32", shape=(-1, 10)),),
        "reading": READING,
    }
    signature |= {name: changes.pop(name) for name in tuple(changes) if name in signature}
    written = {
        "engine": EngineOptions(),
        "signature": Signature.model_validate(signature),
        "techniques": (),
        "size_bytes": 10,
        "model_digest": "sha256:m",
        "files": {},
        "lineage": Lineage(resource="ml/shop", original_model="sha256:o"),
    }
    return Manifest.model_validate(written | changes)


def test_a_delivered_model_that_is_slower_and_larger_but_not_worse_goes_live() -> None:
    """It takes the place of an optimized champion, and the sentence says what that costs until it is optimized."""
    decision = decided(gained=9, latency=3.0, size=4.0)
    assert (decision.verdict, decision.reason) == (Verdict.PROMOTE, "NotWorse")
    assert decision.message.startswith("The delivered model keeps every limit; beside the champion it is 4.0x larger")
    assert "p95 3.0x slower at accuracy 0.960 → 0.969" in decision.message
    assert decision.subject is not None
    assert why(decision.subject, decision, evidence()) == "Keeps every limit beside the champion."


def test_a_finalist_of_a_search_that_gains_nothing_stays_off() -> None:
    """What counts for a delivered model counts for no candidate."""
    decision = decide(evidence(contender(gained=9, latency=3.0, size=4.0)), objectives=USUAL, min_gain=0.05)
    assert decision.verdict is Verdict.NO_GAIN


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ({"lost": 60}, "AccuracyBelowMargin"),
        ({"gained": 40, "lost": 50}, "TooFewTestRows"),
    ],
)
def test_a_delivered_model_that_is_worse_or_may_be_stays_off(measured: dict[str, Any], reason: str) -> None:
    """A limit is kept only where the rows prove it, as for any candidate."""
    decision = decided(**measured)
    assert (decision.verdict, decision.reason) == (Verdict.GATE_FAILED, reason)
    assert decision.message.startswith("The delivered model is ")


def test_a_limit_on_latency_holds_for_a_delivered_model_too() -> None:
    """What the owner writes down as a limit is one for every version."""
    decision = decided(objectives=(*USUAL, limit(P95, GoalType.THRESHOLD, "3")), gained=9, latency=3.0)
    assert (decision.verdict, decision.reason) == (Verdict.GATE_FAILED, "LatencyAboveLimit")


@pytest.mark.parametrize(
    ("objectives", "added"),
    [
        (USUAL, []),
        ((wanted(ACCURACY), wanted(P95)), [(ACCURACY, "PercentMaxDegradation")]),
        ((limit(ACCURACY, GoalType.THRESHOLD, "0.9"), wanted(P95)), [(ACCURACY, "PercentMaxDegradation")]),
        ((limit(ACCURACY, GoalType.MIN_IMPROVEMENT, "0.01"), wanted(P95)), []),
        ((wanted(P95),), [(ACCURACY, "MaxDegradation"), (Metric.D2_BRIER, "PercentMaxDegradation")]),
        (
            (limit(Metric.FIDELITY, GoalType.THRESHOLD, "0.9"), wanted(P95)),
            [(ACCURACY, "MaxDegradation"), (Metric.D2_BRIER, "PercentMaxDegradation")],
        ),
    ],
)
def test_quality_is_always_held_against_the_champion(
    objectives: tuple[Objective, ...], added: list[tuple[Metric, str]]
) -> None:
    """No spec lets a delivered model go live that is worse: where it sets no such limit, one is added."""
    every = objectives_of_delivered(objectives, manifest())
    assert every[: len(objectives)] == objectives
    assert [(one.metric, one.goal.type.value if one.goal else "") for one in every[len(objectives) :]] == added


def test_a_model_without_labels_is_refused_where_no_code_tells_its_quality() -> None:
    """It would always agree with itself: such a verdict would say nothing."""
    request = judge_request().model_copy(update={"delivered": True, "objectives": (wanted(SIZE),)})
    with pytest.raises(JobError, match="no objective tells the quality") as refused:
        held(request, manifest(task=Task.EMBEDDING))
    assert refused.value.reason is Reason.REQUEST_INVALID
    told = request.model_copy(update={"objectives": (wanted(Metric.CUSTOM), wanted(SIZE))})
    assert held(told, manifest(task=Task.EMBEDDING)).objectives[2].metric is Metric.CUSTOM
    asked = request.model_copy(update={"delivered": None})
    assert held(asked, manifest(task=Task.EMBEDDING)) is asked


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": Task.REGRESSION}, "its task is Regression, the champion's Classification"),
        ({"inputs": (TensorSpec(name="x", dtype="float32", shape=(-1, 65)),)}, r"its inputs are x float32 \(N, 65\)"),
        ({"inputs": (TensorSpec(name="x", dtype="float64", shape=(-1, 64)),)}, r"its inputs are x float64 \(N, 64\)"),
        ({"inputs": ()}, "its inputs are "),
        ({"outputs": (TensorSpec(name="y", dtype="float32", shape=(-1, 10)),)}, r"its outputs are y float32 \(N, 10\)"),
        ({"classes": ("cat", "dog")}, "its classes are cat, dog, the champion's the numbers of its score columns"),
        ({"reading": Reading(scores="scores", scale=Scale.LOGITS)}, "read in another way"),
        ({"reading": READING.model_copy(update={"positive": 1})}, "its positive class is 1, the champion's 0"),
    ],
)
def test_models_of_another_kind_are_not_compared(changes: dict[str, Any], words: str) -> None:
    """The refusal names the first difference and both ways on; nothing is measured before."""
    with pytest.raises(JobError, match=words) as refused:
        require_comparable(manifest(), manifest(**changes), ref("delivered"))
    assert refused.value.reason is Reason.MODELS_DIFFER
    assert refused.value.object == ref("delivered").uri


def test_models_that_differ_in_weights_rows_and_engine_are_compared() -> None:
    """A free number of rows fits a fixed one; a threshold and the shares of classes are the model's own.

    What nobody has found out of one of them, as of a bundle by an earlier release, makes no difference.
    """
    fixed = (TensorSpec(name="x", dtype="float32", shape=(8, 64)),)
    reading = READING.model_copy(update={"threshold": 0.3, "rarest": 0.2, "scale": None, "positive": None})
    require_comparable(manifest(), manifest(inputs=fixed, reading=reading, model_digest="sha256:n"), ref("delivered"))
