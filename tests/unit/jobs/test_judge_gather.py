"""What is measured of champion and finalists, and how strictly, on real models and the real test split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import quantize_dynamic

from optimizer_jobs.commands.judge import comparison, measuring
from optimizer_jobs.commands.judge.evidence import Contender, Evidence
from optimizer_jobs.commands.judge.measuring import THOROUGH, fitting, measure
from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import answer
from optimizer_jobs.measure.latency import Effort, Timings, Unrest, ratio
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import GoalType, Objective
from retune.api.search import Batch, Serving
from retune.contract.requests import BundleRef
from tests.unit.jobs.judge_for_tests import limit
from tests.unit.jobs.tasks_for_tests import save_embedding

ACCURACY = Metric.ACCURACY
QUICK = Effort(min_rounds=2, max_rounds=2, max_seconds=5, calls_per_block=10)
MARGIN = limit(ACCURACY, GoalType.MAX_DEGRADATION, "0.05")
PERFECT = limit(ACCURACY, GoalType.THRESHOLD, "1")

Proven = Callable[..., Evidence]
Judged = Callable[..., dict[str, Contender]]


def entrant(bundle: Bundle, plan: str) -> Entrant:
    """Return a bundle as one that takes part."""
    return Entrant(bundle=bundle, ref=BundleRef(uri="pvc://a/b", digest=bundle.digest), plan=plan)


def spoil(model: Path, into: Path) -> Path:
    """Write the model with its last layer upside down: right on next to no row."""
    proto = onnx.load(model)
    weights = next(each for each in proto.graph.initializer if each.name == "w2")
    weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), "w2"))
    onnx.save(proto, into)
    return into


@pytest.fixture
def proven(make: Callable[..., Bundle], delivered: Path, splits: dict[str, Rows], tmp_path: Path) -> Proven:
    """Return a function that gives the evidence on a finalist as good as the champion, and one that is spoilt."""
    champion = entrant(make("champion"), "champion")
    same = entrant(make("same", engine=EngineOptions(graph_level="basic")), "same")
    spoilt = entrant(make("spoilt", model=spoil(delivered / "mlp.onnx", tmp_path / "spoilt.onnx")), "spoilt")

    def evidence(*objectives: Objective) -> Evidence:
        rules = Rules(objectives=objectives, confidence=0.95, min_gain=0.05, threads=1, seed=0)
        found = measure(champion, (same, spoilt), splits["test"], original=champion, rules=rules, effort=QUICK)
        return found.evidence

    return evidence


@pytest.fixture
def judged(proven: Proven) -> Judged:
    """Return the same with the finalists alone, by plan."""
    return lambda *objectives: {each.plan: each for each in proven(*objectives).contenders}


def test_what_fails_alone_is_judged_alone(judged: Judged) -> None:
    """Once one of two finalists has passed, the other one's interval needs no correction any more (Holm)."""
    found = judged(MARGIN)

    assert found["same"].confidence == pytest.approx(0.975)
    assert found["spoilt"].confidence == pytest.approx(0.95)


def test_a_finalist_passes_only_when_it_keeps_every_limit_on_quality(judged: Judged) -> None:
    """With a second limit that nobody keeps, nobody has passed, and both stay at the stricter confidence."""
    found = judged(MARGIN, PERFECT)

    assert [each.confidence for each in found.values()] == pytest.approx([0.975, 0.975])


def test_without_a_limit_quality_still_has_its_paired_difference(judged: Judged) -> None:
    """Latency alone is asked for; what happens to accuracy is measured all the same."""
    found = judged(Objective(metric=Metric.LATENCY_P95_MS))

    assert found["same"].difference.value == 0
    assert found["same"].agreement.value == 1
    assert found["spoilt"].difference.high < -0.8
    assert found["spoilt"].difference.lost > 400
    assert found["spoilt"].metrics[ACCURACY].value < 0.1


@pytest.mark.parametrize("factor", [1.0, 1.2, 2.0])
def test_a_restless_node_widens_latency_by_its_unrest_or_makes_it_worthless(
    factor: float, proven: Proven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interval of times is as wide as the champion's distance from itself; beyond half as much again none counts."""
    raw: list[Interval] = []

    def told(first: Timings, second: Timings, q: float, *, confidence: float) -> Interval:
        raw.append(ratio(first, second, q, confidence=confidence))
        return raw[-1]

    monkeypatch.setattr(measuring, "aa_check", lambda *_, **__: Unrest(factor, "busy") if factor > 1 else None)
    monkeypatch.setattr(comparison, "ratio", told)
    evidence = proven(MARGIN)
    found = evidence.contenders[0].ratios
    expected = [each.widened(factor if factor < 1.5 else 1.0) for each in raw]
    assert (evidence.doubt, evidence.noise) == {1.0: (None, None), 1.2: ("busy", None), 2.0: (None, "busy")}[factor]
    assert found[Metric.LATENCY_P95_MS] in expected
    assert found[Metric.LATENCY_P50_MS] in expected
    assert found[Metric.SIZE_BYTES].low == found[Metric.SIZE_BYTES].high


def unlike(usual: float, slow: float) -> Timings:
    """Return times of which eight in ten are usual and two are slow, in ms: the median is the first, p95 the second."""
    return Timings(blocks=np.tile([usual] * 8 + [slow] * 2, (20, 1)), first_call_ms=slow)


@pytest.mark.parametrize(
    ("asked", "quantiles"),
    [
        ((), (0.95,)),
        ((Metric.LATENCY_P50_MS,), (0.5,)),
        ((Metric.LATENCY_P95_MS,), (0.95,)),
        ((Metric.LATENCY_P95_MS, Metric.LATENCY_P50_MS), (0.5, 0.95)),
    ],
)
def test_usual_and_slow_calls_are_told_apart(
    asked: tuple[Metric, ...], quantiles: tuple[float, ...], proven: Proven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The median is that of usual calls and p95 that of slow ones, of every model and against the champion.

    What is measured until it is known closely is the quantile that an objective speaks of.
    """
    times = {"champion": unlike(1.0, 10.0), "same": unlike(2.0, 5.0), "spoilt": unlike(0.5, 40.0)}
    closely: list[Sequence[float]] = []

    def measured(subjects: Mapping[str, object], *_: object, quantiles: Sequence[float], **__: object) -> object:
        closely.append(quantiles)
        return dict(zip(subjects, (*times.values(), times["champion"]), strict=True))

    monkeypatch.setattr(measuring, "interleave_until", measured)
    evidence = proven(*(Objective(metric=metric) for metric in asked))
    p50, p95 = Metric.LATENCY_P50_MS, Metric.LATENCY_P95_MS
    assert closely == [quantiles]
    assert [evidence.champion.metrics[metric].value for metric in (p50, p95)] == [1, 10]
    same, spoilt = evidence.contenders
    assert [same.metrics[metric].value for metric in (p50, p95)] == [2, 5]
    assert [same.ratios[metric].value for metric in (p50, p95)] == pytest.approx([2, 0.5])
    assert [spoilt.ratios[metric].value for metric in (p50, p95)] == pytest.approx([0.5, 4])


@pytest.mark.parametrize("batch", [1, 64])
def test_quality_is_measured_in_requests_of_the_size_that_is_served(
    batch: int, make: Callable[..., Bundle], splits: dict[str, Rows], tmp_path: Path
) -> None:
    """Dynamic int8 takes its range from the whole request, so its answers are those of the batch that serves."""
    made = save_embedding(tmp_path)
    encoder = made.folder / made.model
    quantize_dynamic(encoder, tmp_path / "int8.onnx")
    original = entrant(make("encoder", model=encoder, task=Task.EMBEDDING), "original")
    rounded = entrant(make("int8", model=tmp_path / "int8.onnx", task=Task.EMBEDDING), "int8")
    rules = Rules(objectives=(), confidence=0.95, min_gain=0.05, threads=1, seed=0, serving=Serving(batch_size=batch))
    rows = splits["test"]
    found = measure(original, (rounded,), rows, original=original, rules=rules, effort=QUICK)
    session = open_model(tmp_path / "int8.onnx", EngineOptions())
    expected, other = (answer(session, rows, task=Task.EMBEDDING, batch=size).numbers for size in (batch, 256))

    assert np.array_equal(found.answers[rounded.bundle.digest].numbers, expected)
    assert not np.array_equal(found.answers[rounded.bundle.digest].numbers, other)


@pytest.mark.slow
def test_answers_that_depend_on_the_rows_beside_them_count_at_the_worst_size(
    make: Callable[..., Bundle], splits: dict[str, Rows], tmp_path: Path
) -> None:
    """Rows of very different scale: alone, 8 bits do for each; together, the largest takes the range of the others."""
    random = np.random.default_rng(0)
    scale = np.exp(random.normal(0, 3, (512, 1))).astype(np.float32)
    rows = splits["test"].take(np.arange(512) % len(splits["test"]))
    rows = replace(rows, inputs={"x": rows.inputs["x"] * scale})
    made = save_embedding(tmp_path)
    encoder = made.folder / made.model
    quantize_dynamic(encoder, tmp_path / "int8.onnx")
    original = entrant(make("encoder", model=encoder, task=Task.EMBEDDING), "original")
    rounded = entrant(make("int8", model=tmp_path / "int8.onnx", task=Task.EMBEDDING), "int8")
    same = entrant(make("same", model=encoder, task=Task.EMBEDDING, engine=EngineOptions(graph_level="basic")), "same")
    serving = Serving(batches=(Batch(size=1, weight="99"), Batch(size=64)))
    rules = Rules(objectives=(), confidence=0.95, min_gain=0.05, threads=1, seed=0, serving=serving)
    measured = measure(original, (rounded, same), rows, original=original, rules=rules, effort=QUICK)
    int8, untouched = measured.evidence.contenders

    session = open_model(tmp_path / "int8.onnx", EngineOptions())
    alone, together = (answer(session, rows, task=Task.EMBEDDING, batch=size) for size in (1, 64))
    worst = evaluate(Metric.COSINE, together, rows, reference=measured.delivered).value
    assert worst < evaluate(Metric.COSINE, alone, rows, reference=measured.delivered).value
    assert int8.metrics[Metric.COSINE].value == worst
    assert int8.differences[Metric.COSINE].value == pytest.approx(worst - 1)
    assert (int8.worst_size, untouched.worst_size) == (64, None)
    assert [(at.size, at.share) for at in int8.sizes] == [(1, 0.99), (64, 0.01)]


def test_latency_that_decides_nothing_is_not_measured_at_length() -> None:
    """An objective on latency gets all the effort there is; without one the report's numbers need no such care."""
    size, timed = (Objective(metric=metric) for metric in (Metric.SIZE_BYTES, Metric.LATENCY_P50_MS))
    assert fitting(THOROUGH, (MARGIN, size, timed), compared=True) == THOROUGH
    brief = fitting(THOROUGH, (MARGIN, size), compared=True)
    assert brief.max_seconds < THOROUGH.max_seconds / 4
    assert brief.half_width > THOROUGH.half_width
    assert fitting(QUICK, (MARGIN, size), compared=True).max_seconds == QUICK.max_seconds


def test_a_champion_alone_is_measured_as_briefly_as_can_be() -> None:
    """Where nothing is compared, its own numbers are told and no ratio is waited for."""
    alone = fitting(THOROUGH, (Objective(metric=Metric.LATENCY_P95_MS),), compared=False)
    assert alone.max_rounds == THOROUGH.min_rounds
