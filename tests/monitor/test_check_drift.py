"""The drift verdict on real rows through the real Evidently: what it promises, and what it never does."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from optimizer_jobs.commands.check import column_statistics as statistics
from optimizer_jobs.commands.check.column_statistics import Kind, effect, p_value
from optimizer_jobs.commands.check.columns import Cause
from optimizer_jobs.commands.check.components import components
from optimizer_jobs.commands.check.drift import Findings, compare
from optimizer_jobs.commands.check.drift_verdict import columns, judge
from retune.api.monitoring import Drift, DriftMethod
from retune.api.watched import Verdict
from tests.bench.monitoring.alarms import delays, quiet
from tests.bench.monitoring.worlds import World, world


@pytest.fixture(scope="module", name="cancer")
def _cancer() -> World:
    return world("breast_cancer")


def found(world: World, **changes: Any) -> Findings:
    """Compare two draws of a world, the second changed."""
    generator = np.random.default_rng(0)
    before, now = world.draw(200, generator), world.draw(500, generator)
    return compare(before, now.assign(**changes), Drift(), names=world.columns)


def test_quiet_windows_raise_nothing_and_a_shift_is_seen_in_two(cancer: World) -> None:
    """The bench shows this for thousands of windows; fifty, and a few changes, are seen here."""
    calm = quiet(cancer, windows=50, rows=500, reference=200)
    assert (calm.windows, calm.breaches, calm.unknown) == (50, 0, 0)
    assert delays(cancer, deviations=1.0, share=0.25, runs=3, rows=500, reference=200) == [2, 2, 2]


def test_rows_that_repeat_each_other_raise_nothing(cancer: World) -> None:
    """At a correlation of 0.9 from row to row, a test that counts every row calls most quiet windows drifted."""
    generator = np.random.default_rng(0)
    before = cancer.draw(2000, generator)
    windows = [cancer.draw(2000, generator, rho=0.9) for _ in range(20)]
    naive = [
        min(p_value(before[name], now[name], Kind.NUMERIC, DriftMethod.KS) for name in cancer.inputs) for now in windows
    ]
    assert sum(p < 1e-4 for p in naive) >= 5
    said = [judge(compare(before, now, Drift(), names=cancer.columns), Drift(), samples=2000) for now in windows]
    assert Verdict.BREACH not in {each.verdict for each in said}


def test_a_drifted_prediction_counts_alone(cancer: World) -> None:
    """Inputs are as they were; the model answers one class alone."""
    findings = found(cancer, prediction=0)
    verdict = judge(findings, Drift(), samples=500)
    assert (verdict.verdict, verdict.reason, findings.share) == (Verdict.BREACH, "PredictionDrifted", 0.0)
    assert columns(findings)[0].name == "prediction"


def test_a_few_drifted_columns_are_told_but_are_no_breach(cancer: World) -> None:
    """Between the limits a signal keeps its state, and below them it clears."""
    names = cancer.inputs
    moved = {name: cancer.rows[name].mean() + 5 * cancer.rows[name].std() for name in names}
    verdicts = {
        count: judge(found(cancer, **{name: moved[name] for name in names[:count]}), Drift(), samples=500)
        for count in (3, 5, 6)
    }
    told = {count: (each.verdict, each.value) for count, each in verdicts.items()}
    assert told == {3: (Verdict.CLEAR, "0.1"), 5: (Verdict.BETWEEN, "0.1667"), 6: (Verdict.BREACH, "0.2")}


def test_a_proof_of_a_change_that_is_too_small_is_ignored(cancer: World) -> None:
    """With enough rows every difference is proven; minEffect says from where it matters."""
    generator = np.random.default_rng(0)
    before, now = cancer.draw(20000, generator), cancer.draw(20000, generator)
    slight = now.assign(**{name: now[name] + 0.05 * now[name].std() for name in cancer.inputs})
    findings = compare(before, slight, Drift(), names=cancer.inputs)
    assert all(each.adjusted < 0.01 for each in findings.inputs)
    assert findings.share == 0.0


def test_memory_that_runs_out_is_no_fault_of_a_column(cancer: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is not judged then, because with more memory the column might have drifted."""

    def exhausted(*_: object) -> float:
        raise MemoryError

    monkeypatch.setattr("optimizer_jobs.commands.check.drift.p_value", exhausted)
    with pytest.raises(MemoryError):
        found(cancer)


def test_one_column_that_breaks_the_library_is_its_own_unknown(cancer: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are compared, and the sentence names it."""
    broken = cancer.inputs[0]
    real = statistics.effect

    def failing(reference: pd.Series, current: pd.Series, kind: Kind, method: DriftMethod) -> tuple[str, float]:
        if reference.name == broken:
            raise ZeroDivisionError("such is life")
        return real(reference, current, kind, method)

    monkeypatch.setattr("optimizer_jobs.commands.check.drift.effect", failing)
    findings = found(cancer)
    verdict = judge(findings, Drift(), samples=500)
    assert [(each.name, each.cause) for each in findings.not_compared] == [(broken, Cause.FAILED)]
    assert len(findings.inputs) == 29
    assert verdict.verdict is Verdict.CLEAR
    assert broken in verdict.message


def test_most_columns_missing_is_unknown(cancer: World) -> None:
    """Half of a schema says nothing about the other half."""
    before, now = cancer.draw(200, np.random.default_rng(0)), cancer.draw(500, np.random.default_rng(1))
    findings = compare(before, now.drop(columns=cancer.inputs[:20]), Drift(), names=cancer.columns)
    verdict = judge(findings, Drift(), samples=500)
    assert (verdict.verdict, verdict.reason) == (Verdict.UNKNOWN, "SchemaMismatch")


@pytest.mark.parametrize("method", DriftMethod)
def test_every_method_sees_a_shift_and_no_shift(cancer: World, method: DriftMethod) -> None:
    """Each measures its own size; the proof is ours."""
    generator = np.random.default_rng(0)
    before, now = cancer.draw(200, generator), cancer.draw(500, generator)
    names = cancer.inputs
    moved = now.assign(**{name: now[name] + now[name].std() for name in names})
    drift = Drift(method=method)
    same = judge(compare(before, now, drift, names=names), drift, samples=500)
    other = judge(compare(before, moved, drift, names=names), drift, samples=500)
    assert (same.verdict, other.verdict) == (Verdict.CLEAR, Verdict.BREACH), (same.message, other.message)


def test_sizes_are_those_of_evidently_s_own_report(cancer: World) -> None:
    """The stat tests are called past the report; the numbers are the same."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    generator = np.random.default_rng(0)
    before, now = cancer.draw(200, generator), cancer.draw(500, generator)
    name = cancer.inputs[0]
    definition = DataDefinition(numerical_columns=[name])
    both = [Dataset.from_pandas(each[[name]], data_definition=definition) for each in (now, before)]
    report = Report([ValueDrift(column=name, method="wasserstein"), ValueDrift(column=name, method="ks")]).run(*both)
    values = [each["value"] for each in report.dict()["metrics"]]
    size = effect(before[name], now[name], Kind.NUMERIC, DriftMethod.AUTO)[1]
    assert values == pytest.approx([size, p_value(before[name], now[name], Kind.NUMERIC, DriftMethod.AUTO)])


def test_images_are_one_column_that_sees_what_pixels_show() -> None:
    """Digits as images: equal draws are alike; those shifted by one pixel are not."""
    images = load_digits().images.reshape(-1, 1, 8, 8)
    generator = np.random.default_rng(0)
    before, now = (images[generator.integers(0, len(images), 500)] for _ in range(2))
    verdicts = []
    for current in (now, np.roll(now, 1, axis=3)):
        one, other = components("x", before, current, seed=0)
        names = tuple(map(str, one))
        findings = compare(one, other, Drift(), names=names, wide={"x": names})
        assert [each.name for each in findings.inputs] == ["x"]
        verdicts.append(judge(findings, Drift(), samples=500).verdict)
    assert verdicts == [Verdict.CLEAR, Verdict.BREACH]
